//! The pictures of a request, and the fields that say how to use them.

use super::reader::Reader;
use super::{GenerationInput, ImageSource, InputRules, SchedulerKind};

/// diffusers' default.
pub const IMAGE_GUIDANCE_SCALE: f32 = 1.5;

/// A request's pictures.
pub(super) struct Pictures {
    /// The picture to start from, or to change.
    pub init_image: Option<ImageSource>,
    pub mask: Option<ImageSource>,
    pub prompt_strength: Option<f64>,
    /// None for models that do not change pictures as the prompt says.
    pub image_guidance_scale: Option<f32>,
}

impl Pictures {
    pub fn read(
        reader: &mut Reader,
        rules: &InputRules,
        scheduler: SchedulerKind,
        warnings: &mut Vec<String>,
    ) -> Self {
        let (init_image, mask) = (picture(reader, rules, "init_image"), picture(reader, rules, "mask"));
        let prompt_strength = reader.share("prompt_strength");
        let image_guidance_scale =
            reader.number("image_guidance_scale", "above 0 and at most 20", |g| g > 0.0 && g <= 20.0);
        if rules.edits_images {
            edits(reader, warnings);
            let image_guidance_scale = image_guidance_scale.or(Some(IMAGE_GUIDANCE_SCALE));
            return Self { init_image, mask, prompt_strength, image_guidance_scale };
        }
        if image_guidance_scale.is_some() {
            warnings.push(
                "image_guidance_scale has no effect with this model, because it is no InstructPix2Pix model."
                    .to_owned(),
            );
        }
        if mask.is_some() && !reader.is_present("init_image") {
            reader.unmet("mask", "It needs an init_image.");
        }
        if init_image.is_some() && !scheduler.starts_from_image() {
            reader.unmet(
                "scheduler",
                &format!("{scheduler} cannot start from an init_image; choose another scheduler."),
            );
        }
        Self { init_image, mask, prompt_strength, image_guidance_scale: None }
    }
}

impl GenerationInput {
    /// All its pictures, by their names in the request.
    pub fn pictures(&mut self) -> Vec<(String, &mut ImageSource)> {
        let named = [("init_image", &mut self.init_image), ("mask", &mut self.mask)];
        let named =
            named.into_iter().filter_map(|(name, picture)| Some((name.to_owned(), picture.as_mut()?)));
        let units = self.controlnets.iter_mut().enumerate();
        let shown = units.map(|(index, unit)| (format!("controlnet[{index}].image"), &mut unit.image));
        named.chain(shown).collect()
    }

    /// The same without its pictures, which have been read.
    #[must_use]
    pub fn without_pictures(mut self) -> Self {
        self.inpainting.result = Some(self.result_size());
        self.inpainting.masked = self.is_masked();
        (self.init_image, self.mask) = (None, None);
        for unit in &mut self.controlnets {
            unit.image = ImageSource::Bytes([].into());
        }
        self
    }
}

fn picture(reader: &mut Reader, rules: &InputRules, name: &str) -> Option<ImageSource> {
    let text = reader.string(name)?;
    if rules.takes_images {
        return ImageSource::parse(text).map_err(|reason| reader.unmet(name, &reason)).ok();
    }
    reader.violation(format!("{name} is not supported by this model, because it has no VAE encoder."));
    None
}

/// What holds for a model that changes a picture as the prompt says. It begins with noise, whatever the scheduler.
fn edits(reader: &mut Reader, warnings: &mut Vec<String>) {
    if !reader.is_present("init_image") {
        reader.violation(
            "init_image is a required input: this model (InstructPix2Pix) changes a picture as the prompt says."
                .to_owned(),
        );
    }
    if reader.is_present("mask") {
        reader.violation(
            "mask is not supported by this model, because InstructPix2Pix changes the whole picture."
                .to_owned(),
        );
    }
    for (name, instead) in [
        ("prompt_strength", ": use image_guidance_scale"),
        ("mask_blur", ", which takes no mask"),
        ("mask_invert", ", which takes no mask"),
    ] {
        if reader.is_present(name) {
            warnings.push(format!("{name} has no effect with this model (InstructPix2Pix){instead}."));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn violations(input: &Value) -> Vec<String> {
        GenerationInput::parse(input, &InputRules::default()).unwrap_err().0
    }

    #[test]
    fn an_init_image_needs_a_model_with_a_vae_encoder() {
        let url = "https://example.org/fox.png";
        let request = json!({"prompt": "", "init_image": url, "mask": url, "prompt_strength": 1});
        let input = GenerationInput::parse(&request, &InputRules::default()).unwrap();
        assert_eq!(input.init_image, Some(ImageSource::Url(url.parse().unwrap())));
        assert_eq!((input.mask, input.mask_invert), (input.init_image, false));
        assert!((input.prompt_strength - 1.0).abs() < f64::EPSILON);

        let rules = InputRules { takes_images: false, ..InputRules::default() };
        assert_eq!(
            GenerationInput::parse(&json!({"prompt": "", "init_image": url}), &rules).unwrap_err().0,
            ["init_image is not supported by this model, because it has no VAE encoder."]
        );
        assert_eq!(
            violations(&json!({"prompt": "", "mask": url})),
            ["mask does not meet the constraints. It needs an init_image."]
        );
        assert_eq!(
            violations(&json!({"prompt": "", "init_image": url, "scheduler": "IPNDM"})),
            [
                "scheduler does not meet the constraints. IPNDM cannot start from an init_image; choose another scheduler."
            ]
        );
    }

    #[test]
    fn a_model_that_changes_pictures_needs_one_and_takes_no_mask() {
        let rules = InputRules { edits_images: true, ..InputRules::default() };
        let parse = |input: Value| GenerationInput::parse(&input, &rules);
        let url = "https://example.org/fox.png";
        let input = parse(json!({"prompt": "", "init_image": url, "scheduler": "IPNDM"})).unwrap();
        assert_eq!((input.image_guidance_scale, input.rows_per_image()), (Some(1.5), 3));
        assert_eq!(input.request_for(1, 0)["image_guidance_scale"], json!(1.5));
        let input = parse(json!({"prompt": "", "init_image": url, "image_guidance_scale": 0.5})).unwrap();
        assert_eq!(
            (input.image_guidance_scale, input.is_guided(), input.rows_per_image()),
            (Some(0.5), false, 1)
        );

        assert_eq!(
            parse(json!({"prompt": ""})).unwrap_err().0,
            [
                "init_image is a required input: this model (InstructPix2Pix) changes a picture as the prompt says."
            ]
        );
        assert_eq!(
            parse(json!({"prompt": "", "init_image": url, "mask": url})).unwrap_err().0,
            ["mask is not supported by this model, because InstructPix2Pix changes the whole picture."]
        );
        let refused =
            parse(json!({"prompt": "", "init_image": url, "image_guidance_scale": 0})).unwrap_err().0;
        assert!(refused[0].starts_with("image_guidance_scale does not meet the constraints."), "{refused:?}");

        let warned = |strength: Value| {
            parse(json!({"prompt": "", "init_image": url, "prompt_strength": strength})).unwrap().warnings
        };
        assert_eq!(
            warned(json!(0.8)),
            ["prompt_strength has no effect with this model (InstructPix2Pix): use image_guidance_scale."]
        );
        assert!(warned(Value::Null).is_empty());
    }

    #[test]
    fn other_models_have_no_image_guidance() {
        let input = json!({"prompt": "", "image_guidance_scale": 1.5});
        let input = GenerationInput::parse(&input, &InputRules::default()).unwrap();
        assert_eq!(
            (input.image_guidance_scale, input.warnings),
            (
                None,
                vec![
                    "image_guidance_scale has no effect with this model, because it is no InstructPix2Pix model."
                        .to_owned()
                ]
            )
        );
        let plain = GenerationInput::new("");
        assert_eq!((plain.rows_per_image(), plain.request_for(1, 0).get("image_guidance_scale")), (2, None));
        assert_eq!(GenerationInput { guidance_scale: 1.0, ..plain }.rows_per_image(), 1);
    }
}
