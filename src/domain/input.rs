//! The `input` of a request: parsed and checked once.

mod cache_interval;
mod controlnet;
mod drawn;
mod enlarged;
mod few_steps;
mod fields;
mod hires;
mod image_size;
mod inpainting;
mod loras;
mod model_fields;
mod outpaint;
mod pictures;
mod prompts;
mod reader;
mod rules;
mod sampling;
mod upscale;
mod variation;

use serde_json::{Value, json};

pub use self::cache_interval::MAX_CACHE_INTERVAL;
pub use self::controlnet::CONTROLNET_FIELDS;
pub use self::enlarged::{Enlarged, MAX_ENLARGED_SIDE, MAX_SCALE, Target};
use self::hires::First;
pub use self::hires::Hires;
pub use self::image_size::{ImageSize, MAX_PIXELS, MIN_SIDE};
pub use self::inpainting::{
    InpaintArea, InpaintFill, Inpainting, MAX_INPAINT_PADDING, MAX_RESULT_SIDE, ResizeMode,
};
pub use self::outpaint::{MAX_OUTPAINT, Outpaint};
pub use self::pictures::IMAGE_GUIDANCE_SCALE;
use self::pictures::Pictures;
pub use self::prompts::CheckedPrompt;
use self::prompts::Prompts;
use self::reader::{Reader, small};
pub use self::rules::{InputRules, PromptCheck, PromptLength};
pub use self::sampling::Sampling;
pub use self::upscale::{UPSCALE_GRID, Upscale};
pub use self::variation::Variation;
use super::lora::{Lora, LoraOrigin};
use super::{
    ControlUnit, ImageSource, NoiseSource, Precision, SchedulerKind, Upscaler, Vae, prompt_parts,
    without_lora_tags,
};

/// The longest accepted prompt, in bytes. A model reads far less.
pub const MAX_PROMPT_BYTES: usize = 65_536;
pub const MAX_OUTPUTS: u32 = 10;
pub const MAX_STEPS: u32 = 500;
/// In pixels: the maximum of A1111's slider.
pub const MAX_MASK_BLUR: u64 = 64;
/// The number of layers of SD v1's text encoder.
const MAX_CLIP_SKIP: u32 = 12;

/// A valid request for pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationInput {
    /// The prompt as sent, including its LoRA tags.
    pub prompt: String,
    pub negative_prompt: String,
    /// Whether the seed draws the wildcards in both: `{a|b}` and `__name__`.
    pub wildcards: bool,
    /// The LoRAs to merge into the model, in the order of the request.
    pub loras: Vec<Lora>,
    /// The layer of the text encoder to use, counted from the end as A1111 does: 1 is the last.
    pub clip_skip: u32,
    pub size: ImageSize,
    pub num_outputs: u32,
    pub num_inference_steps: u32,
    /// Every such call of the UNet is a whole one.
    pub cache_interval: u32,
    pub guidance_scale: f32,
    /// How far a guided prediction is brought back to the deviation of the one for the prompt, 0 to 1 (Lin et al. 2023,
    /// arXiv 2305.08891, section 3.4).
    pub guidance_rescale: f64,
    /// The share of the steps that are guided, 0 to 1 (Kynkäänniemi et al. 2024, arXiv 2404.07724: guidance near the end
    /// does harm).
    pub guidance_end: f64,
    pub scheduler: SchedulerKind,
    /// How its steps are spaced, and how much noise they add.
    pub sampling: Sampling,
    /// The seed of image 0; image i has `seed + i`. None means a random seed.
    pub seed: Option<u64>,
    pub noise: NoiseSource,
    /// That of the UNet's linear layers.
    pub precision: Precision,
    /// How the noise differs from the seed's own.
    pub variation: Variation,
    /// The picture to start from.
    pub init_image: Option<ImageSource>,
    /// The mask that shows where to repaint `init_image`.
    pub mask: Option<ImageSource>,
    /// Whether black areas are repainted instead of white ones.
    pub mask_invert: bool,
    /// Copies the kept areas of `init_image` over the result, with the edge blurred by this many pixels. None copies
    /// nothing, as in the reference.
    pub mask_blur: Option<u32>,
    /// How `init_image` is laid out, and what is repainted of it.
    pub inpainting: Inpainting,
    /// How much of `init_image` may change, 0 to 1.
    pub prompt_strength: f64,
    /// How closely to follow `init_image`, for models that change a picture as the prompt says. None for other models.
    pub image_guidance_scale: Option<f32>,
    /// The ControlNets to follow.
    pub controlnets: Vec<ControlUnit>,
    /// The second pass over the enlarged picture.
    pub hires: Option<Hires>,
    /// Enlarges `init_image`, and draws nothing.
    pub upscale: Option<Upscale>,
    /// What decodes the pictures.
    pub vae: Vae,
    /// Whether to return pictures that the model's safety checker flags.
    pub nsfw: bool,
    /// What of the request has no effect, a sentence each.
    pub warnings: Vec<String>,
}

/// All errors in a request, in the hosted worker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(" "))]
pub struct Violations(pub Vec<String>);

impl GenerationInput {
    /// A request with the hosted worker's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            wildcards: false,
            loras: Vec::new(),
            clip_skip: 1,
            size: ImageSize { width: 512, height: 512 },
            num_outputs: 1,
            num_inference_steps: 50,
            cache_interval: 1,
            guidance_scale: 7.5,
            guidance_rescale: 0.0,
            guidance_end: 1.0,
            scheduler: SchedulerKind::KLms,
            sampling: Sampling::default(),
            seed: None,
            noise: NoiseSource::Cpu,
            precision: Precision::Full,
            variation: Variation::default(),
            init_image: None,
            mask: None,
            mask_invert: false,
            mask_blur: None,
            inpainting: Inpainting::default(),
            prompt_strength: 0.8,
            image_guidance_scale: None,
            controlnets: Vec::new(),
            hires: None,
            upscale: None,
            vae: Vae::Full,
            nsfw: true,
            warnings: Vec::new(),
        }
    }

    /// Reads the `input` of a request. `null` means the default. The error lists every violation.
    pub fn parse(input: &Value, rules: &InputRules) -> Result<Self, Violations> {
        let Some(fields) = input.as_object() else {
            return Err(Violations(vec!["input should be an object.".to_owned()]));
        };
        let mut reader = Reader::new(fields);
        let defaults = Self::new("");

        reader.refuse_unknown(&Self::FIELDS);
        let upscale = Upscale::read(&mut reader, rules, &Self::FIELDS);
        let steps =
            reader.peek("num_inference_steps").filter(|steps| (1..=u64::from(MAX_STEPS)).contains(steps));
        let steps = steps.map_or(defaults.num_inference_steps, small);
        let needs_prompt = upscale.is_none();
        let Prompts { prompt, negative_prompt, wildcards } =
            Prompts::read(&mut reader, rules, steps, (needs_prompt, false));
        let mut warnings = Vec::new();
        let loras = loras::read(&mut reader, rules, &prompt, &mut warnings);
        let clip_skip = model_fields::clip_skip(&mut reader, rules);
        let size = ImageSize::read(&mut reader, rules, defaults.size);
        let has_size = reader.is_present("width") || reader.is_present("height");
        let num_outputs = reader.integer("num_outputs", 1, u64::from(MAX_OUTPUTS));
        let num_inference_steps = reader.integer("num_inference_steps", 1, u64::from(MAX_STEPS));
        let guidance_scale =
            reader.number("guidance_scale", "above 0 and at most 20", |g| g > 0.0 && g <= 20.0);
        let guidance_rescale = reader.share("guidance_rescale");
        let guidance_end = reader.share("guidance_end");
        let (scheduler, sampling) = Sampling::read(&mut reader, rules, &mut warnings);
        let seed = reader.seed("seed");
        let noise = reader.choice("noise", &NoiseSource::ALL.map(|source| (source.as_str(), source)));
        let precision = model_fields::precision(&mut reader, rules);
        warnings.extend(model_fields::without_guidance(&reader, rules, &negative_prompt));
        let (scale, few) =
            (guidance_scale.unwrap_or(defaults.guidance_scale), num_inference_steps.map_or(steps, small));
        warnings.extend(few_steps::hint(&loras, scale, few));
        let pictures = Pictures::read(&mut reader, rules, scheduler, &mut warnings);
        let Pictures { init_image, mask, prompt_strength, image_guidance_scale } = pictures;
        let mask_invert = reader.flag("mask_invert");
        let mask_blur = reader.integer("mask_blur", 0, MAX_MASK_BLUR);
        let controlnets = controlnet::read(&mut reader, rules);
        let cache_interval = cache_interval::read(&mut reader, rules, !controlnets.is_empty(), &mut warnings);
        let inpainting = Inpainting::read(&mut reader, rules, &mut warnings);
        let size =
            inpainting.checked_size(&mut reader, rules, (size, has_size), (init_image.as_ref(), num_outputs));
        let is_within_picture = inpainting.keeps_picture();
        let first = First { size, scheduler, steps, wildcards, is_within_picture };
        let hires = Hires::read(&mut reader, rules, first, &mut warnings);
        let variation = Variation::read(&mut reader, rules, (size, is_within_picture), &mut warnings);
        if variation.tiling && !controlnets.is_empty() {
            reader.unmet("tiling", "It cannot be combined with controlnet, whose pictures have no rim.");
        }
        if variation.tiling && hires.is_some() {
            reader.unmet(
                "tiling",
                "It cannot be combined with hires, whose enlarged picture would have seams.",
            );
        }
        let vae = model_fields::vae(&mut reader, rules);
        let nsfw = reader.flag("nsfw");

        reader.finish()?;
        Ok(Self {
            prompt,
            negative_prompt,
            wildcards,
            loras,
            clip_skip: clip_skip.unwrap_or(defaults.clip_skip),
            size,
            num_outputs: num_outputs.map_or(defaults.num_outputs, small),
            num_inference_steps: num_inference_steps.map_or(defaults.num_inference_steps, small),
            cache_interval,
            guidance_scale: guidance_scale.unwrap_or(defaults.guidance_scale),
            guidance_rescale: guidance_rescale
                .filter(|_| !rules.embeds_guidance)
                .unwrap_or(rules.guidance_rescale),
            guidance_end: guidance_end.filter(|_| !rules.embeds_guidance).unwrap_or(rules.guidance_end),
            scheduler,
            sampling,
            seed,
            noise: noise.unwrap_or(defaults.noise),
            precision: precision.unwrap_or(defaults.precision),
            variation,
            init_image,
            mask,
            mask_invert: mask_invert.unwrap_or(defaults.mask_invert),
            mask_blur: mask_blur.map(small).or(inpainting.usual_mask_blur()),
            inpainting,
            prompt_strength: prompt_strength.unwrap_or(defaults.prompt_strength),
            image_guidance_scale,
            controlnets,
            hires,
            upscale,
            vae: vae.unwrap_or(defaults.vae),
            nsfw: nsfw.unwrap_or(defaults.nsfw),
            warnings,
        })
    }

    /// Whether the UNet is also asked without the prompt. (diffusers' `do_classifier_free_guidance`.) The parts of a
    /// prompt are weighed against that answer.
    pub fn is_guided(&self) -> bool {
        (self.guidance_scale > 1.0 || self.prompt_parts() > 1)
            && self.image_guidance_scale.is_none_or(|scale| scale >= 1.0)
    }

    /// The rows of a UNet call that one picture takes: with the prompt, without it, and without the picture to change.
    pub fn rows_per_image(&self) -> u32 {
        let parts = self.prompt_parts();
        match (self.is_guided(), self.image_guidance_scale) {
            (false, _) => parts,
            (true, None) => parts + 1,
            (true, Some(_)) => parts + 2,
        }
    }

    /// The most parts that `AND` joins in the prompt, whatever its wildcards draw.
    fn prompt_parts(&self) -> u32 {
        small(prompt_parts(&without_lora_tags(&self.prompt)).len() as u64)
    }

    /// The `input` that draws only image `index` again. It names every field, so that no default, not even one of the
    /// model's, can change the picture.
    pub fn request_for(&self, seed: u64, index: u32) -> Value {
        let lora = self.loras.iter().find(|lora| lora.origin == LoraOrigin::Field);
        let mut request = json!({
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "lora": lora.map(|lora| &lora.name),
            "lora_scale": lora.map(|lora| shortest(lora.unet)),
            "clip_skip": self.clip_skip,
            "width": self.size.width,
            "height": self.size.height,
            "num_outputs": 1,
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": shortest(self.guidance_scale),
            "guidance_rescale": self.guidance_rescale,
            "guidance_end": self.guidance_end,
            "scheduler": self.scheduler.as_str(),
            "seed": self.variation.seed_of(seed, index),
            "noise": self.noise.as_str(),
        });
        self.sampling.write(&mut request);
        if self.precision != Precision::default() {
            request["precision"] = json!(self.precision.as_str());
        }
        if self.wildcards {
            request["wildcards"] = json!(true);
        }
        if self.cache_interval > 1 {
            request["cache_interval"] = json!(self.cache_interval);
        }
        self.variation.write_to(&mut request, index);
        if let Some(scale) = self.image_guidance_scale {
            request["image_guidance_scale"] = json!(shortest(scale));
        }
        if !self.controlnets.is_empty() {
            request["controlnet"] = controlnet::request_for(&self.controlnets);
        }
        if let Some(hires) = &self.hires {
            request["hires"] = hires.request();
        }
        if self.vae != Vae::Full {
            request["vae"] = json!(self.vae.as_str());
        }
        request
    }

    /// A random seed of 16 bits, as the hosted worker drew it
    /// (`int.from_bytes(os.urandom(2), "big")`).
    pub fn random_seed() -> Result<u64, getrandom::Error> {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes)?;
        Ok(u64::from(u16::from_be_bytes(bytes)))
    }

    /// The seed of image `index`, without a [`Variation`].
    pub fn seed_of(seed: u64, index: u32) -> u64 {
        seed.wrapping_add(u64::from(index))
    }
}

/// The shortest decimal form of a number: 7.3, not 7.300000190734863.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests;
