//! A model as its configuration files describe it, with SD v1's values where they are silent.

use super::preview::LatentRgb;
use crate::diffusion::files::{
    FileError, ModelConfigs, ModelFiles, PartFiles, SCHEDULER_FILE, STABLEHAND_FILE, StablehandConfig,
    VaeConfig, halvings,
};
use crate::diffusion::schedulers::{SchedulerConfig, by_zero_snr};
use crate::diffusion::text::Tokenizer;
use crate::domain::{InputRules, ModelPart, SchedulerKind, Spacing};

/// How many added tokens a sentence names.
const MOST_TOKENS: usize = 5;

/// What a model's graphs do not tell.
#[derive(Clone)]
pub struct ModelDescription {
    pub name: String,
    /// Pixels along one side of a latent.
    pub vae_scale_factor: u32,
    pub latent_channels: u32,
    /// What the VAE's latents are multiplied by before the UNet sees them.
    pub scaling_factor: f32,
    /// Width and height are multiples of this many pixels.
    pub grid: u32,
    /// The side that the model was trained at, in pixels.
    pub native_side: u32,
    /// The largest side that it draws well, where `stablehand.json` states one.
    pub max_side: Option<u32>,
    /// The scheduler for requests that name none, and how its steps are spaced.
    pub default_scheduler: (SchedulerKind, Option<Spacing>),
    /// The `guidance_rescale` and the `guidance_end` for requests that name none.
    pub default_guidance: (f64, f64),
    pub scheduler: SchedulerConfig,
    /// What its latents look like, for previews.
    pub latent_rgb: Option<LatentRgb>,
    /// What says how the UNet's answers are to be read, where that is not a scheduler's file.
    pub prediction_source: Option<String>,
    /// Whether the UNet takes the guidance scale as an embedding, so that negative prompts have no effect.
    pub embeds_guidance: bool,
    /// What was assumed for want of a file, and what is not read, a sentence each.
    pub assumptions: Vec<String>,
    /// What is not read, in a few words each, for the text of pictures.
    pub not_read: Vec<String>,
    /// The schedulers that draw as if the last timestep had a signal, for a model that was trained without it.
    pub deaf_to_zero_snr: Vec<SchedulerKind>,
}

impl ModelDescription {
    /// From configuration files, any of which may be missing.
    pub fn new(files: &ModelFiles, tokenizer: &Tokenizer) -> Result<Self, FileError> {
        let ModelConfigs { unet, vae, scheduler, stablehand, own_words, .. } = &files.configs;
        let mut assumptions = Vec::new();
        if unet.is_none() {
            assumptions.push("it has no unet/config.json: Stable Diffusion v1's sizes are used".to_owned());
        }
        if !vae.states_scaling_factor() {
            let factor = VaeConfig::SD_V1_SCALING_FACTOR;
            assumptions.push(format!("its VAE states no scaling_factor: {factor} is used"));
        }
        if scheduler.is_none() {
            assumptions.push(format!("it has no {SCHEDULER_FILE}: Stable Diffusion v1's is used"));
        }
        let mut scheduler = scheduler.clone().unwrap_or_default();
        assumptions.extend(correct(&mut scheduler));
        let is_zero_snr = scheduler.rescale_betas_zero_snr == Some(true);
        let deaf_to_zero_snr = if is_zero_snr { by_zero_snr().1 } else { Vec::new() };
        let embeds_guidance = embeds_guidance(files);
        assumptions.extend(peculiarities(files, tokenizer, is_zero_snr, embeds_guidance));
        let usual_scheduler = match (embeds_guidance, is_zero_snr) {
            // Nothing else draws with these as they were trained.
            (true, _) => SchedulerKind::Lcm,
            (false, true) => SchedulerKind::EulerD,
            (false, false) => InputRules::default().scheduler,
        };
        let default_scheduler = default_scheduler(stablehand, usual_scheduler)?;
        let default_guidance = default_guidance(stablehand)?;
        let vae_scale_factor = vae.scale_factor();
        // Our own graphs carry their sizes through; others halve and double them, and must end where they began.
        let levels = unet.as_ref().and_then(|unet| unet.levels).unwrap_or(4);
        let grid = match files.part(ModelPart::UNet).is_some_and(PartFiles::takes_our_graph) {
            true => vae_scale_factor,
            false => vae_scale_factor * halvings(levels),
        };
        let latent_rgb = match &stablehand.latent_rgb_factors {
            Some(factors) => Some(LatentRgb::new(factors, stablehand.latent_rgb_bias.unwrap_or_default())),
            // The very number that files of Stable Diffusion v1 hold, and those of other models do not.
            None if vae.latent_channels() == 4 && vae.scaling_factor() == VaeConfig::SD_V1_SCALING_FACTOR => {
                Some(LatentRgb::stable_diffusion_v1())
            }
            None => None,
        };
        let native_latents = unet.as_ref().and_then(|unet| unet.sample_size).unwrap_or(64);
        Ok(Self {
            name: files.place.name(),
            vae_scale_factor,
            latent_channels: vae.latent_channels(),
            scaling_factor: vae.scaling_factor(),
            grid,
            native_side: native_latents * vae_scale_factor,
            max_side: stablehand.max_side.map(|side| side.max(grid)),
            default_scheduler,
            default_guidance,
            scheduler,
            latent_rgb,
            prediction_source: own_words.source().map(str::to_owned),
            embeds_guidance,
            assumptions,
            not_read: files.unread.in_short.clone(),
            deaf_to_zero_snr,
        })
    }
}

/// The scheduler that `stablehand.json` states, or the usual one, and the spacing that it states.
fn default_scheduler(
    stablehand: &StablehandConfig,
    usual: SchedulerKind,
) -> Result<(SchedulerKind, Option<Spacing>), FileError> {
    let wrong = |reason| FileError::Config { file: STABLEHAND_FILE.to_owned(), reason };
    let (scheduler, named) = match &stablehand.scheduler {
        None => (usual, None),
        Some(name) => {
            SchedulerKind::parse(name).ok_or_else(|| wrong(format!("'{name}' is not a scheduler")))?
        }
    };
    let spacing = match &stablehand.spacing {
        None => named,
        Some(name) => Some(Spacing::parse(name).ok_or_else(|| wrong(format!("'{name}' is not a spacing")))?),
    };
    match spacing.and_then(|spacing| scheduler.refuses(spacing)) {
        None => Ok((scheduler, spacing)),
        Some(reason) => Err(wrong(format!("{scheduler} {reason}"))),
    }
}

/// The guidance that `stablehand.json` states, within the bounds of a request.
fn default_guidance(stablehand: &StablehandConfig) -> Result<(f64, f64), FileError> {
    let usual = InputRules::default();
    let rescale = stablehand.guidance_rescale.unwrap_or(usual.guidance_rescale);
    let end = stablehand.guidance_end.unwrap_or(usual.guidance_end);
    for (key, value) in [("guidance_rescale", rescale), ("guidance_end", end)] {
        if !(0.0..=1.0).contains(&value) {
            let reason = format!("{key} is {value}; it must be from 0 to 1");
            return Err(FileError::Config { file: STABLEHAND_FILE.to_owned(), reason });
        }
    }
    Ok((rescale, end))
}

/// Whether the UNet takes the guidance scale as an embedding.
fn embeds_guidance(files: &ModelFiles) -> bool {
    let unet = files.configs.unet.as_ref();
    let says_so = unet.is_some_and(|unet| unet.guidance_width.is_some());
    files.part(ModelPart::UNet).is_some_and(|files| match files.takes_our_graph() {
        true => files.embeds_guidance(),
        false => says_so,
    })
}

/// What is unusual about a model and what of it is not read, a sentence each.
fn peculiarities(
    files: &ModelFiles,
    tokenizer: &Tokenizer,
    is_zero_snr: bool,
    embeds_guidance: bool,
) -> Vec<String> {
    let mut sentences = files.configs.own_words.notes.clone();
    let left_out = tokenizer.left_out();
    if !left_out.is_empty() {
        let some: Vec<_> = left_out.iter().take(MOST_TOKENS).map(|token| shown(token)).collect();
        let others = if some.len() < left_out.len() { " and others" } else { "" };
        sentences.push(format!(
            "its text encoder has no embeddings for the tokenizer's added tokens {}{others}: they are read as any text is",
            some.join(", ")
        ));
    }
    if is_zero_snr {
        let (knows, ignores) = by_zero_snr();
        let names = |kinds: Vec<SchedulerKind>| {
            kinds.into_iter().map(SchedulerKind::as_str).collect::<Vec<_>>().join(", ")
        };
        sentences.push(format!(
            "it was trained with zero terminal SNR: {} draw with it as it was trained, and {} do not, as in diffusers",
            names(knows),
            names(ignores)
        ));
    }
    if embeds_guidance {
        sentences.push(
            "its UNet takes guidance_scale as an embedding, so that negative prompts have no effect"
                .to_owned(),
        );
    }
    sentences.extend(files.unread.not_read.iter().cloned());
    sentences
}

/// A token that a stranger wrote, fit for a sentence.
fn shown(token: &str) -> String {
    token.chars().take(40).collect::<String>().escape_debug().to_string()
}

/// Sets what old files leave out or have wrong, as diffusers' pipelines do when they are built
/// (`pipeline_stable_diffusion.py`, `__init__`). Returns a sentence for each value that the file has otherwise.
fn correct(scheduler: &mut SchedulerConfig) -> Vec<String> {
    let mut corrections = Vec::new();
    if let Some(offset) = scheduler.steps_offset.replace(1).filter(|offset| *offset != 1) {
        corrections
            .push(format!("its {SCHEDULER_FILE} has steps_offset {offset}: 1 is used, as diffusers does"));
    }
    if scheduler.clip_sample.replace(false) == Some(true) {
        corrections
            .push(format!("its {SCHEDULER_FILE} has clip_sample true: false is used, as diffusers does"));
    }
    corrections
}
