//! What a client may ask the model for, parsed and bounded once.

mod loras;
mod reader;
mod rules;

use serde_json::{Value, json};

use self::reader::{Reader, small};
pub use self::rules::{InputRules, PromptCheck};
use super::lora::{Lora, LoraOrigin};
use super::{ImageSource, NoiseSource, SchedulerKind};

/// The longest prompt taken, in bytes; the model itself reads far less.
pub const MAX_PROMPT_BYTES: usize = 65_536;
pub const MAX_OUTPUTS: u32 = 10;
/// The largest `width × height`.
pub const MAX_PIXELS: u32 = 786_432;
pub const MIN_SIDE: u32 = 64;
pub const MAX_STEPS: u32 = 500;
/// In pixels, as far as A1111's slider goes.
pub const MAX_MASK_BLUR: u64 = 64;
/// SD v1's text encoder has so many layers.
const MAX_CLIP_SKIP: u32 = 12;

/// The size of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    pub width: u32,
    pub height: u32,
}

/// One valid request for pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationInput {
    /// As it was sent, tags included.
    pub prompt: String,
    pub negative_prompt: String,
    /// What is merged into the model for this request, in the order in which it was named.
    pub loras: Vec<Lora>,
    /// Which of the text encoder's layers speaks, counted from the last, 1, as A1111 counts.
    pub clip_skip: u32,
    pub size: ImageSize,
    pub num_outputs: u32,
    pub num_inference_steps: u32,
    pub guidance_scale: f32,
    pub scheduler: SchedulerKind,
    /// Sigmas spaced as Karras et al. did; only where the scheduler has them.
    pub karras: bool,
    /// Of image 0; image i has `seed + i`. Absent: to be drawn.
    pub seed: Option<u64>,
    pub noise: NoiseSource,
    /// The picture to start from.
    pub init_image: Option<ImageSource>,
    /// Where to repaint `init_image`; there is none without that.
    pub mask: Option<ImageSource>,
    /// Black is repainted instead of white.
    pub mask_invert: bool,
    /// `init_image` is laid over what was drawn where it is kept, its edge blurred by so many pixels. Absent: it
    /// is not, as in the reference.
    pub mask_blur: Option<u32>,
    /// How much of `init_image` may change, 0 to 1.
    pub prompt_strength: f64,
    /// Whether pictures that the model's safety checker flags are wanted, too.
    pub nsfw: bool,
}

/// Everything that is wrong with a request, in the hosted worker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join(" "))]
pub struct Violations(pub Vec<String>);

impl GenerationInput {
    /// The hosted worker's defaults.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            negative_prompt: String::new(),
            loras: Vec::new(),
            clip_skip: 1,
            size: ImageSize { width: 512, height: 512 },
            num_outputs: 1,
            num_inference_steps: 50,
            guidance_scale: 7.5,
            scheduler: SchedulerKind::KLms,
            karras: false,
            seed: None,
            noise: NoiseSource::Cpu,
            init_image: None,
            mask: None,
            mask_invert: false,
            mask_blur: None,
            prompt_strength: 0.8,
            nsfw: true,
        }
    }

    /// Reads the `input` of a request. `null` means the default; every violation is collected.
    pub fn parse(input: &Value, rules: &InputRules) -> Result<Self, Violations> {
        let Some(fields) = input.as_object() else {
            return Err(Violations(vec!["input should be an object.".to_owned()]));
        };
        let mut reader = Reader::new(fields);
        let defaults = Self::new("");

        reader.refuse_unknown(&Self::FIELDS);
        let prompt = reader.required_text("prompt", rules);
        let negative_prompt = reader.text("negative_prompt", rules);
        let loras = loras::read(&mut reader, rules, prompt.as_deref().unwrap_or_default());
        let clip_skip = clip_skip(&mut reader, rules);
        let size = size(&mut reader, rules, defaults.size);
        let num_outputs = reader.integer("num_outputs", 1, u64::from(MAX_OUTPUTS));
        let num_inference_steps = reader.integer("num_inference_steps", 1, u64::from(MAX_STEPS));
        let guidance_scale =
            reader.number("guidance_scale", "above 0 and at most 20", |g| g > 0.0 && g <= 20.0);
        let (scheduler, karras) = scheduler(&mut reader, rules);
        let seed = reader.integer("seed", 0, u64::MAX);
        let noise = reader.choice("noise", &NoiseSource::ALL.map(|source| (source.as_str(), source)));
        let (init_image, mask) = pictures(&mut reader, rules, scheduler);
        let mask_invert = reader.flag("mask_invert");
        let mask_blur = reader.integer("mask_blur", 0, MAX_MASK_BLUR);
        let prompt_strength = reader.double("prompt_strength", "from 0 to 1", |s| (0.0..=1.0).contains(&s));
        let nsfw = reader.flag("nsfw");

        reader.finish()?;
        Ok(Self {
            prompt: prompt.unwrap_or_default(),
            negative_prompt: negative_prompt.unwrap_or_default(),
            loras,
            clip_skip: clip_skip.unwrap_or(defaults.clip_skip),
            size,
            num_outputs: num_outputs.map_or(defaults.num_outputs, small),
            num_inference_steps: num_inference_steps.map_or(defaults.num_inference_steps, small),
            guidance_scale: guidance_scale.unwrap_or(defaults.guidance_scale),
            scheduler,
            karras,
            seed,
            noise: noise.unwrap_or(defaults.noise),
            init_image,
            mask,
            mask_invert: mask_invert.unwrap_or(defaults.mask_invert),
            mask_blur: mask_blur.map(small),
            prompt_strength: prompt_strength.unwrap_or(defaults.prompt_strength),
            nsfw: nsfw.unwrap_or(defaults.nsfw),
        })
    }

    /// The `input` that asks for image `index` alone, once the request's seed is known: every field is named,
    /// so that no default, the model's own included, can change the picture.
    pub fn request_for(&self, seed: u64, index: u32) -> Value {
        let lora = self.loras.iter().find(|lora| lora.origin == LoraOrigin::Field);
        json!({
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
            "scheduler": self.scheduler.as_str(),
            "karras": self.karras,
            "seed": Self::seed_of(seed, index),
            "noise": self.noise.as_str(),
        })
    }

    /// A seed for who names none: 16 bits, as the hosted worker drew them
    /// (`int.from_bytes(os.urandom(2), "big")`).
    pub fn random_seed() -> Result<u64, getrandom::Error> {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes)?;
        Ok(u64::from(u16::from_be_bytes(bytes)))
    }

    /// The seed that reproduces image `index` alone.
    pub fn seed_of(seed: u64, index: u32) -> u64 {
        seed.wrapping_add(u64::from(index))
    }
}

impl GenerationInput {
    /// Everything that is read above.
    pub const FIELDS: [&str; 20] = [
        "prompt",
        "negative_prompt",
        "clip_skip",
        "width",
        "height",
        "num_outputs",
        "num_inference_steps",
        "guidance_scale",
        "scheduler",
        "karras",
        "seed",
        "noise",
        "init_image",
        "mask",
        "mask_invert",
        "mask_blur",
        "prompt_strength",
        "nsfw",
        "lora",
        "lora_scale",
    ];
}

fn clip_skip(reader: &mut Reader, rules: &InputRules) -> Option<u32> {
    let layer = small(reader.integer("clip_skip", 1, u64::from(MAX_CLIP_SKIP))?);
    if layer <= rules.max_clip_skip {
        return Some(layer);
    }
    reader.unmet(
        "clip_skip",
        &match rules.max_clip_skip {
            0 | 1 => {
                "It is not supported by this model, whose text encoder gives its last layer alone: leave \
                      it out, or send 1."
                    .to_owned()
            }
            max => format!("It is {layer}; this model's text encoder gives its last {max} layers."),
        },
    );
    None
}

fn size(reader: &mut Reader, rules: &InputRules, default: ImageSize) -> ImageSize {
    let width = reader.side("width", rules.grid).unwrap_or(default.width);
    let height = reader.side("height", rules.grid).unwrap_or(default.height);
    if u64::from(width) * u64::from(height) > u64::from(MAX_PIXELS) {
        reader.unmet(
            "width",
            &format!("width × height is {width} × {height}; at most {MAX_PIXELS} pixels are drawn."),
        );
    }
    ImageSize { width, height }
}

/// The scheduler and whether with Karras sigmas, which its name may say (`DPM++ 2M Karras`) or `karras`;
/// where both do, `karras` counts.
fn scheduler(reader: &mut Reader, rules: &InputRules) -> (SchedulerKind, bool) {
    let name = reader.string("scheduler").map(str::to_owned);
    let karras = reader.flag("karras");
    let (scheduler, named_karras) = match name {
        None => (rules.scheduler, rules.karras),
        Some(name) => SchedulerKind::parse(&name).unwrap_or_else(|| {
            let known = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
            reader.unmet("scheduler", &format!("It must be one of {known}."));
            (rules.scheduler, false)
        }),
    };
    let field = if karras.is_some() { "karras" } else { "scheduler" };
    let karras = karras.unwrap_or(named_karras);
    if karras && !scheduler.has_karras() {
        let known = SchedulerKind::ALL.into_iter().filter(|kind| kind.has_karras());
        let known = known.map(SchedulerKind::as_str).collect::<Vec<_>>().join(", ");
        reader.unmet(field, &format!("{scheduler} has no Karras sigmas; {known} have."));
    }
    (scheduler, karras)
}

/// The picture to start from and its mask, without which there is none.
fn pictures(
    reader: &mut Reader,
    rules: &InputRules,
    scheduler: SchedulerKind,
) -> (Option<ImageSource>, Option<ImageSource>) {
    let mut picture = |name: &str| {
        let text = reader.string(name)?;
        if rules.takes_images {
            return ImageSource::parse(text).map_err(|reason| reader.unmet(name, &reason)).ok();
        }
        reader.violation(format!("{name} is not supported by this model: it has no encoder for pictures."));
        None
    };
    let (init_image, mask) = (picture("init_image"), picture("mask"));
    if mask.is_some() && !reader.is_present("init_image") {
        reader.unmet("mask", "It needs an init_image, which it is the mask of.");
    }
    if init_image.is_some() && !scheduler.starts_from_image() {
        reader.unmet("scheduler", &format!("{scheduler} cannot start from an init_image; choose another."));
    }
    (init_image, mask)
}

/// A number as people write it: 7.3, not 7.300000190734863.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests;
