//! The fields of a request, which generations and edits share, read into our own words.

use serde_json::Value;

use crate::diffusion::image::PictureFile;
use crate::domain::{ImageSize, JobKind, MAX_OUTPUTS, NewJob};
use crate::http::request::{Endpoints, ServedEndpoint};
use crate::http::surface::{Canvas, FieldError, Fields, Finish, SurfaceError, Translation, read_size};

use super::OpenAi;
use super::error::OpenAiError;

const MAX_PROMPT_CHARACTERS: usize = 32_000;
const MAX_PARTIALS: i128 = 3;
/// The size of pictures when a request asks for none: our own default.
const OWN_SIZE: ImageSize = ImageSize { width: 512, height: 512 };
/// The names of OpenAI's models. Clients send them whatever the server has, and mean its default model.
const OPENAI_MODELS: [&str; 3] = ["dall-e-", "gpt-image-", "chatgpt-image-"];

/// A request that was read.
pub struct Ask {
    pub endpoint: ServedEndpoint,
    pub translation: Translation,
    pub canvas: Canvas,
    pub finish: Finish,
    /// OpenAI's word for the quality, for the answer.
    pub quality: &'static str,
    pub form: AnswerForm,
    /// Set for an answer in events: how many previews come at most.
    pub partials: Option<u32>,
}

/// How pictures are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerForm {
    pub base64: bool,
    pub url: bool,
}

impl AnswerForm {
    const BASE64: Self = Self { base64: true, url: false };
    const URL: Self = Self { base64: false, url: true };
    const BOTH: Self = Self { base64: true, url: true };

    /// Most clients look at one of the two fields only. If they do not say which, the model's name tells what they read.
    fn read(fields: &Fields, model: Option<&str>) -> Result<Self, FieldError> {
        match fields.word(&["response_format"])?.as_deref() {
            Some("b64_json") => return Ok(Self::BASE64),
            Some("url") => return Ok(Self::URL),
            Some(_) => {
                return Err(FieldError::new("response_format", "response_format should be b64_json or url."));
            }
            None => {}
        }
        let model = model.unwrap_or_default();
        Ok(match OPENAI_MODELS.into_iter().find(|name| model.starts_with(name)) {
            Some("dall-e-") => Self::URL,
            Some(_) => Self::BASE64,
            None => Self::BOTH,
        })
    }
}

impl Ask {
    /// Reads the fields. `picture` is the size of the picture to edit, which is the default size then.
    pub fn read(
        fields: &Fields,
        endpoints: &Endpoints,
        picture: Option<ImageSize>,
    ) -> Result<Self, OpenAiError> {
        let model = fields.text(&["model"])?.map(|model| model.trim().to_owned());
        let endpoint = endpoint(endpoints, model.as_deref())?.clone();
        let count = count(fields)?;
        let canvas = canvas(fields, &endpoint, count, picture)?;
        let (quality, steps) = quality(fields);
        let mut translation = Translation::default();
        translation.set_from("num_outputs", "n", count);
        translation.set_from("width", "size", canvas.drawn.width);
        translation.set_from("height", "size", canvas.drawn.height);
        if let Some(steps) = steps {
            translation.set_from("num_inference_steps", "quality", steps);
        }
        words(fields, &mut translation)?;
        let finish =
            Finish { size: canvas.enlarge_to(), format: format(fields)?, quality: compression(fields)? };
        let form = AnswerForm::read(fields, model.as_deref())?;
        Ok(Self { endpoint, translation, canvas, finish, quality, form, partials: partials(fields)? })
    }

    /// The job. If its pictures are answered as URLs, it is kept like one of `/run`. Otherwise its request holds it.
    pub fn job(&mut self) -> Result<NewJob, OpenAiError> {
        let translation = std::mem::take(&mut self.translation);
        let kept = self.form.url && self.partials.is_none();
        let kind = if kept { JobKind::Run } else { JobKind::Held };
        translation.into_job::<OpenAi>(&self.endpoint, kind)
    }
}

/// The endpoint that a model's name means.
fn endpoint<'a>(endpoints: &'a Endpoints, model: Option<&str>) -> Result<&'a ServedEndpoint, SurfaceError> {
    let name = model.unwrap_or_default();
    if let Some(endpoint) = endpoints.named(name) {
        return Ok(endpoint);
    }
    let is_openai = OPENAI_MODELS.into_iter().any(|known| name.starts_with(known));
    if name.is_empty() || is_openai || endpoints.iter().len() == 1 {
        return endpoints.default_one().ok_or_else(|| SurfaceError::no_model(name, endpoints));
    }
    Err(SurfaceError::no_model(name, endpoints))
}

fn count(fields: &Fields) -> Result<u32, FieldError> {
    let count = fields.integer(&["n"])?.unwrap_or(1);
    let bounds = || FieldError::new("n", format!("n is {count}; it must be from 1 to {MAX_OUTPUTS}."));
    u32::try_from(count).ok().filter(|count| (1..=MAX_OUTPUTS).contains(count)).ok_or_else(bounds)
}

/// The size in `size`. None for `auto`.
pub fn size(fields: &Fields) -> Result<Option<ImageSize>, FieldError> {
    let Some(size) = fields.value(&["size"]) else { return Ok(None) };
    let text = size.as_str().unwrap_or_default().trim();
    if text.eq_ignore_ascii_case("auto") {
        return Ok(None);
    }
    let unread = || FieldError::new("size", "size should be WIDTHxHEIGHT, such as 512x768, or auto.");
    read_size(text).map(Some).ok_or_else(unread)
}

/// The size: `width` and `height` if there are any, since nobody sends those by accident; otherwise `size`.
fn canvas(
    fields: &Fields,
    endpoint: &ServedEndpoint,
    count: u32,
    picture: Option<ImageSize>,
) -> Result<Canvas, FieldError> {
    let grid = endpoint.rules.grid;
    let pixels = |name: &str| {
        let side = fields.integer(&[name])?;
        let unmet = || FieldError::new(name, format!("{name} is not a number of pixels."));
        side.map(|side| u32::try_from(side).map_err(|_| unmet())).transpose()
    };
    let (width, height) = (pixels("width")?, pixels("height")?);
    let size = size(fields)?;
    if let (None, None, None, Some(picture)) = (width, height, size, picture) {
        return Ok(Canvas::like(picture, grid));
    }
    let default = size.or(picture).unwrap_or(OWN_SIZE);
    let asked = ImageSize { width: width.unwrap_or(default.width), height: height.unwrap_or(default.height) };
    let name = if size.is_none() && width.is_some() { "width" } else { "size" };
    Canvas::new(asked, count, grid).map_err(|sentence| {
        FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
    })
}

/// The quality for the answer, and the steps that it asks for.
fn quality(fields: &Fields) -> (&'static str, Option<u32>) {
    let word = fields.value(&["quality"]).and_then(Value::as_str).map(|word| word.trim().to_lowercase());
    match word.as_deref() {
        Some("low") => ("low", Some(15)),
        Some("medium") => ("medium", Some(25)),
        Some("high" | "hd" | "xhigh" | "max") => ("high", Some(50)),
        // Our default has as many steps.
        _ => ("high", None),
    }
}

fn format(fields: &Fields) -> Result<PictureFile, FieldError> {
    let Some(name) = fields.word(&["output_format"])? else { return Ok(PictureFile::default()) };
    PictureFile::parse(&name)
        .ok_or_else(|| FieldError::new("output_format", "output_format should be png, jpeg or webp."))
}

fn compression(fields: &Fields) -> Result<u8, FieldError> {
    let compression = fields.integer(&["output_compression"])?.unwrap_or(100).clamp(0, 100);
    Ok(u8::try_from(compression).unwrap_or(100))
}

fn partials(fields: &Fields) -> Result<Option<u32>, FieldError> {
    let partials = fields.integer(&["partial_images"])?.unwrap_or(0).clamp(0, MAX_PARTIALS);
    let streams = fields.flag(&["stream"])?.unwrap_or(false);
    Ok(streams.then(|| u32::try_from(partials).unwrap_or(0)))
}

/// The fields that say what to draw: the prompt, our own fields, and those by which other programs call the same.
fn words(fields: &Fields, to: &mut Translation) -> Result<(), FieldError> {
    let prompt = fields.text(&["prompt"])?;
    let length = prompt.as_ref().map_or(0, |prompt| prompt.chars().count());
    if length > MAX_PROMPT_CHARACTERS {
        return Err(FieldError::new(
            "prompt",
            format!("prompt has {length} characters; at most {MAX_PROMPT_CHARACTERS} are allowed."),
        ));
    }
    to.text("prompt", fields, &["prompt"])?;
    to.text("negative_prompt", fields, &["negative_prompt"])?;
    to.flag("wildcards", fields, &["wildcards"])?;
    to.seed(fields, &["seed"])?;
    to.integer("num_inference_steps", fields, &["num_inference_steps", "steps", "step"])?;
    to.integer("cache_interval", fields, &["cache_interval"])?;
    to.number("guidance_scale", fields, &["guidance_scale", "cfg_scale", "cfg"])?;
    to.number("guidance_rescale", fields, &["guidance_rescale"])?;
    to.number("guidance_end", fields, &["guidance_end"])?;
    to.text("scheduler", fields, &["scheduler", "sampler_name", "sampler"])?;
    to.flag("karras", fields, &["karras"])?;
    to.text("spacing", fields, &["spacing"])?;
    for number in ["eta", "s_churn", "s_tmin", "s_tmax", "s_noise"] {
        to.number(number, fields, &[number])?;
    }
    to.integer("clip_skip", fields, &["clip_skip"])?;
    to.text("lora", fields, &["lora"])?;
    to.number("lora_scale", fields, &["lora_scale"])?;
    to.text("noise", fields, &["noise"])?;
    to.text("precision", fields, &["precision"])?;
    to.text("vae", fields, &["vae"])?;
    to.number("prompt_strength", fields, &["prompt_strength", "strength"])?;
    to.number("image_guidance_scale", fields, &["image_guidance_scale"])?;
    to.integer("mask_blur", fields, &["mask_blur"])?;
    to.flag("mask_invert", fields, &["mask_invert"])?;
    to.flag("nsfw", fields, &["nsfw"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{EndpointId, InputRules};

    fn served(id: &str, model: &str) -> ServedEndpoint {
        let rules = InputRules { grid: 8, ..InputRules::default() };
        ServedEndpoint { id: EndpointId::new(id), rules, model: model.to_owned() }
    }

    fn read(fields: &Value) -> Result<Ask, OpenAiError> {
        let endpoints = Endpoints::new(vec![served("first", "sd15"), served("anything", "anything-v3")]);
        Ask::read(&Fields::new(fields.as_object().unwrap().clone()), &endpoints, None)
    }

    fn input(fields: &Value) -> Value {
        serde_json::from_str(&read(fields).unwrap().job().unwrap().input).unwrap()
    }

    #[test]
    fn the_form_of_the_answer_follows_the_models_name() {
        for (model, asked, form) in [
            (json!("gpt-image-1"), json!(null), AnswerForm::BASE64),
            (json!("chatgpt-image-latest"), json!(null), AnswerForm::BASE64),
            (json!("dall-e-2"), json!(null), AnswerForm::URL),
            (json!("anything"), json!(null), AnswerForm::BOTH),
            (json!(null), json!(""), AnswerForm::BOTH),
            (json!("gpt-image-1"), json!("url"), AnswerForm::URL),
            (json!("dall-e-3"), json!("b64_json"), AnswerForm::BASE64),
        ] {
            let ask = read(&json!({"prompt": "a", "model": model, "response_format": asked})).unwrap();
            assert_eq!(ask.form, form, "{model} {asked}");
        }
        assert!(read(&json!({"prompt": "a", "response_format": "png"})).is_err());
    }

    #[test]
    fn a_model_is_an_endpoint_or_its_model_or_openais_name_for_the_default() {
        let named = |model: Value| read(&json!({"prompt": "a", "model": model})).map(|ask| ask.endpoint.id);
        for (model, id) in [
            ("anything", "anything"),
            ("Anything-V3", "anything"),
            ("sd15", "first"),
            ("dall-e-2", "first"),
            ("", "first"),
        ] {
            assert_eq!(named(json!(model)).unwrap().as_str(), id, "{model}");
        }
        let error = named(json!("flux\n")).unwrap_err();
        assert_eq!(error.to_string(), "The model flux is not here: this server has anything, first.");
        assert_eq!(error.object()["code"], "model_not_found");
    }

    #[test]
    fn quality_means_steps_unless_they_are_named() {
        for (quality, steps) in [
            ("low", json!(15)),
            ("medium", json!(25)),
            ("HD", json!(50)),
            ("auto", json!(null)),
            ("standard", json!(null)),
        ] {
            let input = input(&json!({"prompt": "a", "quality": quality}));
            assert_eq!(input.get("num_inference_steps").unwrap_or(&Value::Null), &steps, "{quality}");
        }
        assert_eq!(input(&json!({"prompt": "a", "quality": "low", "steps": "7"}))["num_inference_steps"], 7);
    }

    #[test]
    fn a_quality_of_an_odd_type_counts_as_none() {
        for odd in [json!([512, 768]), json!({}), json!({"width": 64}), json!(768), json!(true), json!([])] {
            let expected = json!({"prompt": "a", "num_outputs": 1, "width": 512, "height": 512});
            assert_eq!(input(&json!({"prompt": "a", "quality": odd})), expected, "{odd}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for none in [json!(null), json!(""), json!("auto"), json!(" Auto ")] {
            assert_eq!(input(&json!({"prompt": "a", "size": none}))["width"], 512, "{none}");
        }
        for odd in [
            json!("large"),
            json!("512"),
            json!("512x"),
            json!("-1x5"),
            json!([512, 768]),
            json!({}),
            json!(768),
        ] {
            let error = read(&json!({"prompt": "a", "size": odd})).err().unwrap();
            assert_eq!(error.to_string(), "size should be WIDTHxHEIGHT, such as 512x768, or auto.", "{odd}");
            assert_eq!(error.object()["param"], "size", "{odd}");
        }
    }

    #[test]
    fn extras_have_the_names_of_several_programs() {
        let expected = json!({
            "prompt": "a", "num_outputs": 2, "width": 640, "height": 384, "negative_prompt": "b", "seed": 3,
            "num_inference_steps": 4, "guidance_scale": 5.5, "scheduler": "Euler a", "prompt_strength": 0.5,
        });
        for sent in [
            json!({"steps": 4, "cfg": "5.5", "sampler": "Euler a", "strength": 0.5, "width": 640, "height": "384"}),
            json!({"step": "4", "cfg_scale": 5.5, "sampler_name": "Euler a", "prompt_strength": "0.5", "size": "640x384"}),
            json!({"num_inference_steps": 4.0, "guidance_scale": 5.5, "scheduler": "Euler a", "strength": 0.5, "size": "640*384"}),
        ] {
            let mut fields =
                json!({"prompt": "a", "n": "2", "negative_prompt": "b", "seed": "3", "user": {"a": 1}});
            fields.as_object_mut().unwrap().extend(sent.as_object().unwrap().clone());
            assert_eq!(input(&fields), expected);
        }
    }

    #[test]
    fn a_bad_field_is_named_as_it_was_sent() {
        for (fields, field) in [
            (json!({}), "prompt"),
            (json!({"prompt": ""}), "prompt"),
            (json!({"prompt": "a".repeat(32_001)}), "prompt"),
            (json!({"prompt": "a", "n": 11}), "n"),
            (json!({"prompt": "a", "n": "many"}), "n"),
            (json!({"prompt": "a", "size": "8192x8192"}), "size"),
            (json!({"prompt": "a", "width": -1}), "width"),
            (json!({"prompt": "a", "width": 8192}), "width"),
            (json!({"prompt": "a", "output_format": "gif"}), "output_format"),
            (json!({"prompt": "a", "steps": 501}), "steps"),
            (json!({"prompt": "a", "sampler": "none such"}), "sampler"),
            (json!({"prompt": "a", "seed": -7}), "seed"),
            (json!({"prompt": "a", "stream": "perhaps"}), "stream"),
            (json!({"prompt": "a", "quality": "low", "steps": 0}), "steps"),
            (json!({"prompt": "a", "image_guidance_scale": 21}), "image_guidance_scale"),
            (json!({"prompt": "a", "mask_invert": "perhaps"}), "mask_invert"),
        ] {
            let error = read(&fields).and_then(|mut ask| ask.job()).err().unwrap();
            assert_eq!(error.object()["param"], field, "{fields}: {error}");
        }
    }
}
