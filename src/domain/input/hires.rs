//! `hires`: the picture is drawn, enlarged, and drawn again from the enlarged one.

use serde_json::{Map, Value, json};

use super::enlarged::{Enlarged, Target};
use super::prompts::Prompts;
use super::reader::{Reader, small};
use super::{GenerationInput, ImageSize, InputRules, MAX_STEPS, Sampling, shortest};
use crate::domain::lora::has_lora_tags;
use crate::domain::{SchedulerKind, Spacing, Upscaler};

/// A second pass over the enlarged picture. What is None is as in the first pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Hires {
    /// How large the picture becomes, as asked.
    pub enlarged: Enlarged,
    /// The same in pixels.
    pub target: Target,
    pub upscaler: Upscaler,
    /// The steps of which the second pass makes the last `strength × steps`.
    pub steps: Option<u32>,
    /// How much of the enlarged picture may change, 0 to 1.
    pub strength: f64,
    pub prompt: Option<String>,
    pub negative_prompt: Option<String>,
    pub guidance_scale: Option<f32>,
    /// With how its steps are spaced.
    pub scheduler: Option<(SchedulerKind, Option<Spacing>)>,
}

/// A1111's defaults.
const SCALE: f64 = 2.0;
const STRENGTH: f64 = 0.75;

const FIELDS: [&str; 11] = [
    "scale",
    "width",
    "height",
    "upscaler",
    "steps",
    "strength",
    "prompt",
    "negative_prompt",
    "guidance_scale",
    "scheduler",
    "spacing",
];

/// What a second pass needs to know of the first.
#[derive(Clone, Copy)]
pub(super) struct First {
    pub size: ImageSize,
    pub scheduler: SchedulerKind,
    pub steps: u32,
    /// Whether the seed draws its wildcards.
    pub wildcards: bool,
    /// Whether it draws a region that is laid back into the picture.
    pub is_within_picture: bool,
}

impl Hires {
    /// Reads the object `hires` of a request.
    pub(super) fn read(
        reader: &mut Reader,
        rules: &InputRules,
        first: First,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        if rules.edits_images && reader.is_present("hires") {
            reader.violation(
                "hires is not supported by this model, because InstructPix2Pix changes a picture.".to_owned(),
            );
            return None;
        }
        reader.within("hires", |reader| Self::fields(reader, rules, first, warnings)).flatten()
    }

    fn fields(
        reader: &mut Reader,
        rules: &InputRules,
        first: First,
        warnings: &mut Vec<String>,
    ) -> Option<Self> {
        reader.refuse_unknown(&FIELDS);
        let enlarged = Enlarged::read(reader, SCALE);
        let target = enlarged.target(first.size, rules.grid);
        match &target {
            Err(sentence) => reader.unmet("scale", sentence),
            Ok(target) if first.is_within_picture && target.covers != target.kept => reader.unmet(
                "width",
                "With inpaint_area masked or outpaint, the drawing is laid back into the picture and cannot be cut; name \
                 only one of width and height.",
            ),
            Ok(_) => (),
        }
        let upscaler = upscaler(reader, rules, "upscaler").unwrap_or(Upscaler::LATENT);
        if !rules.takes_images && !upscaler.is_latent() {
            reader.unmet(
                "upscaler",
                &format!(
                    "{} needs the VAE encoder, which this model lacks; use a latent one.",
                    upscaler.as_str()
                ),
            );
        }
        let steps = reader.integer("steps", 0, u64::from(MAX_STEPS)).map(small).filter(|steps| *steps > 0);
        let strength = reader.share("strength").unwrap_or(STRENGTH);
        let own = Prompts::read(reader, rules, steps.unwrap_or(first.steps), (false, first.wildcards));
        let [prompt, negative_prompt] =
            [own.prompt, own.negative_prompt].map(|prompt| Some(prompt).filter(|prompt| !prompt.is_empty()));
        if prompt.as_deref().is_some_and(has_lora_tags) {
            warnings.push(
                "LoRAs in hires.prompt have no effect: both passes use the LoRAs of the prompt.".to_owned(),
            );
        }
        let guidance_scale =
            reader.number("guidance_scale", "above 0 and at most 20", |g| g > 0.0 && g <= 20.0);
        let scheduler = super::sampling::second_scheduler(reader, first.scheduler);
        let kind = scheduler.map_or(first.scheduler, |(kind, _)| kind);
        if !kind.starts_from_image() {
            reader.unmet(
                "scheduler",
                &format!("{kind} cannot start from a picture; choose another scheduler."),
            );
        }
        Some(Self {
            enlarged,
            target: target.ok()?,
            upscaler,
            steps,
            strength,
            prompt,
            negative_prompt,
            guidance_scale,
            scheduler,
        })
    }

    /// The object that asks for this second pass.
    pub(super) fn request(&self) -> Value {
        let mut request = Map::new();
        self.enlarged.write(&mut request);
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                request.insert(name.to_owned(), value);
            }
        };
        put("upscaler", json!(self.upscaler.as_str()));
        put("steps", json!(self.steps));
        put("strength", json!(self.strength));
        put("prompt", json!(self.prompt));
        put("negative_prompt", json!(self.negative_prompt));
        put("guidance_scale", json!(self.guidance_scale.map(shortest)));
        put("scheduler", json!(self.scheduler.map(|(kind, _)| kind.as_str())));
        put("spacing", json!(self.scheduler.and_then(|(_, spacing)| spacing).map(Spacing::as_str)));
        Value::Object(request)
    }
}

/// An upscaler by its name.
fn upscaler(reader: &mut Reader, rules: &InputRules, field: &str) -> Option<Upscaler> {
    let name = reader.string(field)?;
    Upscaler::parse(name, rules.upscalers.as_deref()).map_err(|sentence| reader.unmet(field, &sentence)).ok()
}

impl GenerationInput {
    /// The request of the second pass. It starts from the enlarged drawing, and has the pictures of the first.
    pub fn second_pass(&self) -> Option<Self> {
        let hires = self.hires.as_ref()?;
        let (scheduler, sampling) = match hires.scheduler {
            None => (self.scheduler, self.sampling),
            Some((kind, spacing)) if kind == self.scheduler => (kind, Sampling { spacing, ..self.sampling }),
            // The numbers are those of another scheduler.
            Some((kind, spacing)) => (kind, Sampling { spacing, ..Sampling::default() }),
        };
        Some(Self {
            prompt: hires.prompt.clone().unwrap_or_else(|| self.prompt.clone()),
            negative_prompt: hires.negative_prompt.clone().unwrap_or_else(|| self.negative_prompt.clone()),
            size: hires.target.kept,
            num_inference_steps: hires.steps.unwrap_or(self.num_inference_steps),
            guidance_scale: hires.guidance_scale.unwrap_or(self.guidance_scale),
            prompt_strength: hires.strength,
            scheduler,
            sampling,
            hires: None,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(hires: &Value, beside: &Value) -> Result<GenerationInput, String> {
        let mut input = json!({ "prompt": "a fox", "width": 128, "height": 192, "hires": hires });
        for (name, value) in beside.as_object().into_iter().flatten() {
            input[name] = value.clone();
        }
        let rules = InputRules { grid: 8, ..InputRules::default() };
        GenerationInput::parse(&input, &rules).map_err(|violations| violations.to_string())
    }

    #[test]
    fn a_second_pass_has_a1111_s_defaults_and_the_first_pass_s_fields() {
        let input = parse(&json!({}), &json!({ "num_inference_steps": 12 })).unwrap();
        let second = input.second_pass().unwrap();
        assert_eq!((second.size.width, second.size.height), (256, 384));
        assert_eq!(input.result_size(), second.size);
        assert_eq!((second.num_inference_steps, second.prompt_strength), (12, 0.75));
        assert_eq!((second.prompt.as_str(), second.scheduler), ("a fox", input.scheduler));
        assert_eq!(input.hires.unwrap().upscaler, Upscaler::LATENT);
        assert!(second.hires.is_none());
    }

    #[test]
    fn every_field_of_the_second_pass_is_read_and_written_again() {
        let hires = json!({
            "width": 256, "upscaler": "Latent (nearest-exact)", "steps": 9, "strength": 0.5, "prompt": "a cat",
            "negative_prompt": "rain", "guidance_scale": 3.5, "scheduler": "DPM++ 2M Karras",
        });
        let input = parse(&hires, &json!({})).unwrap();
        let second = input.second_pass().unwrap();
        assert_eq!((second.prompt.as_str(), second.negative_prompt.as_str()), ("a cat", "rain"));
        assert_eq!(
            (second.num_inference_steps, second.scheduler, second.sampling.spacing),
            (9, SchedulerKind::DpmM, Some(Spacing::Karras))
        );
        let request = input.request_for(7, 0);
        assert_eq!(
            request["hires"],
            json!({
                "width": 256, "upscaler": "latent-nearest-exact", "steps": 9, "strength": 0.5, "prompt": "a cat",
                "negative_prompt": "rain", "guidance_scale": 3.5, "scheduler": "DPM-M", "spacing": "karras",
            })
        );
        let spaced = parse(&json!({ "spacing": "karras" }), &json!({ "scheduler": "EULER-D" })).unwrap();
        assert_eq!(spaced.hires.unwrap().scheduler, Some((SchedulerKind::EulerD, Some(Spacing::Karras))));
        let again =
            GenerationInput::parse(&request, &InputRules { grid: 8, ..InputRules::default() }).unwrap();
        assert_eq!(again.hires, input.hires);
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_sentence() {
        const NO: &str = "does not meet the constraints.";
        const URL: &str = "https://example.org/fox.png";
        for (hires, beside, sentence) in [
            (json!(2), json!({}), "hires should be dict type, not int.".to_owned()),
            (
                json!({ "size": 2 }),
                json!({}),
                "Unexpected input. hires.size is not a valid input option.".to_owned(),
            ),
            (
                json!({ "scale": 0.5 }),
                json!({}),
                format!("hires.scale {NO} It is 0.5; it must be from 1 to 8."),
            ),
            (
                json!({ "scale": 2, "width": 256 }),
                json!({}),
                format!("hires.scale {NO} It cannot be combined with a width or a height."),
            ),
            (
                json!({ "scale": 8 }),
                json!({ "width": 1024, "height": 512 }),
                format!(
                    "hires.scale {NO} The picture would become 8192 × 4096 pixels; at most 4096 a side are allowed."
                ),
            ),
            (
                json!({ "strength": 1.5 }),
                json!({}),
                format!("hires.strength {NO} It is 1.5; it must be from 0 to 1."),
            ),
            (
                json!({}),
                json!({ "scheduler": "IPNDM" }),
                format!("hires.scheduler {NO} IPNDM cannot start from a picture; choose another scheduler."),
            ),
            (
                json!({ "width": 256, "height": 256 }),
                json!({ "init_image": URL, "mask": URL, "inpaint_area": "masked" }),
                format!(
                    "hires.width {NO} With inpaint_area masked or outpaint, the drawing is laid back into the picture and \
                     cannot be cut; name only one of width and height."
                ),
            ),
        ] {
            assert_eq!(parse(&hires, &beside).unwrap_err(), sentence);
        }
        let unknown = parse(&json!({ "upscaler": "SwinIR" }), &json!({})).unwrap_err();
        assert!(
            unknown
                .starts_with(&format!("hires.upscaler {NO} There is no upscaler SwinIR; use one of latent,"))
        );
    }
}
