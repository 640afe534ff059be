//! A model's configuration files, each parsed once into one struct.

use serde::Deserialize;

use super::{FileError, ModelPlace};
use crate::diffusion::schedulers::SchedulerConfig;
use crate::domain::{ModelFamily, ModelIndex, UNetConditioning};

pub const SCHEDULER_FILE: &str = "scheduler/scheduler_config.json";
pub const STABLEHAND_FILE: &str = "stablehand.json";

/// What the files say. A file that is missing is `None`, or has no field set.
pub struct ModelConfigs {
    pub unet: Option<UNetConfig>,
    pub vae: VaeConfig,
    pub scheduler: Option<SchedulerConfig>,
    pub stablehand: StablehandConfig,
    /// The other family that they tell of: the end of the sentence "this model is …".
    pub(super) other_family: Option<String>,
}

/// `unet/config.json`.
#[derive(Deserialize, Default)]
pub struct UNetConfig {
    pub sample_size: Option<u32>,
    pub down_block_types: Option<Vec<String>>,
    block_out_channels: Option<Vec<u64>>,
    attention_head_dim: Option<Heads>,
    #[serde(flatten)]
    conditioning: UNetConditioning,
}

/// One number, or one for each level. (It is the number of heads, whatever the name says: diffusers keeps an early
/// mistake.)
#[derive(Deserialize)]
#[serde(untagged)]
enum Heads {
    Everywhere(u64),
    ByLevel(Vec<u64>),
}

/// `config.json` of the VAE.
#[derive(Deserialize, Default)]
pub struct VaeConfig {
    block_out_channels: Option<Vec<u64>>,
    latent_channels: Option<u32>,
    scaling_factor: Option<f32>,
}

/// Our own file beside the others, for what their formats have no word for.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct StablehandConfig {
    /// The largest side that the model draws well, in pixels.
    pub max_side: Option<u32>,
    /// The scheduler that suits the model, for requests that name none.
    pub scheduler: Option<String>,
    /// `guidance_rescale` and `guidance_end` that suit the model, for requests that name none.
    pub guidance_rescale: Option<f64>,
    pub guidance_end: Option<f64>,
    /// For previews: red, green and blue for each latent channel. Their sum, plus the bias, is the pixel's colour in
    /// −1…1.
    pub latent_rgb_factors: Option<Vec<[f32; 3]>>,
    pub latent_rgb_bias: Option<[f32; 3]>,
}

impl ModelConfigs {
    pub fn read(place: &ModelPlace) -> Result<Self, FileError> {
        let index: ModelIndex = place.config("model_index.json")?.unwrap_or_default();
        let unet: Option<UNetConfig> = place.config("unet/config.json")?;
        let has_second_text_encoder = match place {
            ModelPlace::Folder(path) => path.join("text_encoder_2").exists(),
            ModelPlace::Embedded | ModelPlace::Checkpoint { .. } => false,
        };
        let unknown = UNetConditioning::default();
        let conditioning = unet.as_ref().map_or(&unknown, |unet| &unet.conditioning);
        let other_family = ModelFamily::other_by_configs(&index, conditioning, has_second_text_encoder);
        let scheduler = match place.text(SCHEDULER_FILE)? {
            Some(text) => Some(SchedulerConfig::from_json(&text).map_err(|error| FileError::Config {
                file: SCHEDULER_FILE.to_owned(),
                reason: error.to_string(),
            })?),
            None => None,
        };
        Ok(Self {
            unet,
            vae: VaeConfig::read(place)?,
            scheduler,
            stablehand: place.config(STABLEHAND_FILE)?.unwrap_or_default(),
            other_family,
        })
    }
}

impl UNetConfig {
    /// Features of the first level, where the maps are largest.
    pub fn first_channels(&self) -> Option<u64> {
        self.block_out_channels.as_ref()?.first().copied()
    }

    /// Attention heads of the first level.
    pub fn first_heads(&self) -> Option<u64> {
        match self.attention_head_dim.as_ref()? {
            Heads::Everywhere(heads) => Some(*heads),
            Heads::ByLevel(heads) => heads.first().copied(),
        }
    }
}

impl VaeConfig {
    /// SD v1's own number. optimum takes 8 where its configuration has none, and draws grey.
    pub const SD_V1_SCALING_FACTOR: f32 = 0.18215;

    /// Exporters put the file beside either half, or where the weights were.
    fn read(place: &ModelPlace) -> Result<Self, FileError> {
        for folder in ["vae_decoder", "vae_encoder", "vae"] {
            if let Some(config) = place.config(&format!("{folder}/config.json"))? {
                return Ok(config);
            }
        }
        Ok(Self::default())
    }

    /// Pixels along one side of a latent.
    pub fn scale_factor(&self) -> u32 {
        halvings(self.block_out_channels.as_ref().map_or(4, Vec::len))
    }

    pub fn latent_channels(&self) -> u32 {
        self.latent_channels.unwrap_or(4)
    }

    /// What the VAE's latents are multiplied by before the UNet sees them.
    pub fn scaling_factor(&self) -> f32 {
        self.scaling_factor.unwrap_or(Self::SD_V1_SCALING_FACTOR)
    }

    pub fn states_scaling_factor(&self) -> bool {
        self.scaling_factor.is_some()
    }

    /// Features of the level that has the picture's own size.
    pub fn first_channels(&self) -> Option<u64> {
        self.block_out_channels.as_ref()?.first().copied()
    }
}

/// By how much a net of so many levels makes its input smaller: each level after the first halves it.
pub fn halvings(levels: usize) -> u32 {
    1 << u32::try_from(levels.saturating_sub(1)).unwrap_or(0).min(8)
}
