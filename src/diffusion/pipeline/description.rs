//! What a model's config files state, with SD v1's values where they are silent.

use std::sync::Arc;

use serde::Deserialize;

use super::preview::LatentRgb;
use super::prompt_check::ChunkCheck;
use crate::diffusion::files::ModelFolder;
use crate::diffusion::nets::{HiddenLayers, ModelError};
use crate::diffusion::schedulers::SchedulerConfig;
use crate::diffusion::text::Tokenizer;
use crate::domain::{InputRules, ModelPart, SchedulerKind};

/// The numbers of a model that its graphs do not tell.
#[derive(Clone)]
pub struct ModelDescription {
    pub name: String,
    /// Pixels along one side of a latent.
    pub vae_scale_factor: u32,
    pub latent_channels: u32,
    /// What the VAE's latents are multiplied with before the UNet sees them.
    pub scaling_factor: f32,
    pub rules: InputRules,
    /// The side that the model was trained at, in pixels.
    pub native_side: u32,
    /// The largest side that it draws well, where `stablehand.json` states one.
    pub max_side: Option<u32>,
    pub scheduler: SchedulerConfig,
    /// What its latents look like, for previews.
    pub latent_rgb: Option<LatentRgb>,
    pub tokenizer: Arc<Tokenizer>,
    /// What was assumed for want of a file, a sentence each.
    pub assumptions: Vec<String>,
}

#[derive(Deserialize, Default)]
struct UNetConfig {
    sample_size: Option<u32>,
    down_block_types: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
struct VaeConfig {
    block_out_channels: Option<Vec<u32>>,
    latent_channels: Option<u32>,
    scaling_factor: Option<f32>,
}

/// Our own file beside the others: what their formats have no word for.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct StablehandConfig {
    /// The largest side that the model draws well, in pixels.
    max_side: Option<u32>,
    /// The scheduler that suits it, where a request names none.
    scheduler: Option<String>,
    /// For previews: a row of red, green and blue for each latent channel, whose sum, plus the bias, is the pixel's
    /// colour in −1…1.
    latent_rgb_factors: Option<Vec<[f32; 3]>>,
    latent_rgb_bias: Option<[f32; 3]>,
}

/// SD v1's own; optimum, where its config has none, would take 8 and draw grey.
const SCALING_FACTOR: f32 = 0.18215;
const SCHEDULER_FILE: &str = "scheduler/scheduler_config.json";

impl ModelFolder {
    /// Reads the config files, any of which may be missing.
    pub fn describe(&self) -> Result<ModelDescription, ModelError> {
        let mut assumptions = Vec::new();
        let unet: UNetConfig = self.config("unet/config.json")?.unwrap_or_else(|| {
            assumptions
                .push("it has no unet/config.json: sizes are taken to be Stable Diffusion v1's".into());
            UNetConfig::default()
        });
        let vae = self.vae_config()?;
        if vae.scaling_factor.is_none() {
            assumptions.push(format!("its VAE states no scaling_factor: {SCALING_FACTOR} is used"));
        }
        let mut scheduler = SchedulerConfig::default();
        if let Some(text) = self.text(SCHEDULER_FILE)? {
            scheduler = SchedulerConfig::from_json(&text).map_err(|error| ModelError::File {
                file: SCHEDULER_FILE.to_owned(),
                reason: error.to_string(),
            })?;
        } else {
            assumptions.push(format!("it has no {SCHEDULER_FILE}: Stable Diffusion v1's is used"));
        }
        assumptions.extend(correct(&mut scheduler));
        let own: StablehandConfig = self.config("stablehand.json")?.unwrap_or_default();
        let rules = InputRules::default();
        let (default_scheduler, karras) = match own.scheduler {
            None => (rules.scheduler, rules.karras),
            Some(name) => SchedulerKind::parse(&name).ok_or_else(|| ModelError::File {
                file: "stablehand.json".to_owned(),
                reason: format!("'{name}' is no scheduler"),
            })?,
        };
        let tokenizer = Arc::new(self.tokenizer()?);
        let halvings = |levels: usize| 1 << u32::try_from(levels.saturating_sub(1)).unwrap_or(0).min(8);
        let vae_scale_factor = halvings(vae.block_out_channels.map_or(4, |channels| channels.len()));
        // Our own graphs carry their sizes through; others halve and double them, and must end where they began.
        let grid = match self.has_weights_alone(ModelPart::UNet) {
            true => vae_scale_factor,
            false => vae_scale_factor * halvings(unet.down_block_types.map_or(4, |blocks| blocks.len())),
        };
        let latent_channels = vae.latent_channels.unwrap_or(4);
        let scaling_factor = vae.scaling_factor.unwrap_or(SCALING_FACTOR);
        let latent_rgb = match own.latent_rgb_factors {
            Some(factors) => Some(LatentRgb::new(&factors, own.latent_rgb_bias.unwrap_or_default())),
            // The very number that files of Stable Diffusion v1 hold, and those of other models do not.
            #[allow(clippy::float_cmp)]
            None if latent_channels == 4 && scaling_factor == SCALING_FACTOR => {
                Some(LatentRgb::stable_diffusion_v1())
            }
            None => None,
        };
        Ok(ModelDescription {
            name: self.name(),
            vae_scale_factor,
            latent_channels,
            scaling_factor,
            rules: InputRules {
                grid,
                scheduler: default_scheduler,
                karras,
                loras: None,
                takes_images: self.has(ModelPart::VaeEncoder),
                max_clip_skip: HiddenLayers::find(self)?.map_or(1, |layers| layers.max_clip_skip()),
                prompts: Some(Arc::new(ChunkCheck::new(Arc::clone(&tokenizer), None))),
            },
            native_side: unet.sample_size.unwrap_or(64) * vae_scale_factor,
            max_side: own.max_side.map(|side| side.max(grid)),
            scheduler,
            latent_rgb,
            tokenizer,
            assumptions,
        })
    }

    /// The VAE's config, which exporters put beside either half or where the weights were.
    fn vae_config(&self) -> Result<VaeConfig, ModelError> {
        for folder in ["vae_decoder", "vae_encoder", "vae"] {
            if let Some(config) = self.config(&format!("{folder}/config.json"))? {
                return Ok(config);
            }
        }
        Ok(VaeConfig::default())
    }
}

/// Sets what old files leave out or have wrong, as diffusers' pipelines do when they are built
/// (`pipeline_stable_diffusion.py`, `__init__`), and tells what the file has otherwise.
fn correct(scheduler: &mut SchedulerConfig) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(offset) = scheduler.steps_offset.replace(1).filter(|offset| *offset != 1) {
        told.push(format!("its {SCHEDULER_FILE} has steps_offset {offset}: 1 is used, as diffusers does"));
    }
    if scheduler.clip_sample.replace(false) == Some(true) {
        told.push(format!("its {SCHEDULER_FILE} has clip_sample true: false is used, as diffusers does"));
    }
    told
}
