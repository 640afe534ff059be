//! What a model's configuration files say, each parsed once into one struct.

use serde::Deserialize;

use super::config_file::ConfigFile;
use super::own_words::OwnWords;
use super::{FileError, ModelPlace};
use crate::diffusion::schedulers::SchedulerConfig;
use crate::domain::{ModelFamily, ModelIndex, UNetConditioning};

pub const SCHEDULER_FILE: &str = "scheduler/scheduler_config.json";
pub const STABLEHAND_FILE: &str = "stablehand.json";
/// The largest side of latents that a file may state.
const LARGEST_SIDE: u32 = 4096;
/// The largest CLIPs have 48 layers.
const MOST_LAYERS: u32 = 64;

/// What the files say. A file that is missing is `None`, or has no field set.
pub struct ModelConfigs {
    pub unet: Option<UNetConfig>,
    pub vae: VaeConfig,
    pub text_encoder: TextEncoderConfig,
    pub scheduler: Option<SchedulerConfig>,
    pub stablehand: StablehandConfig,
    /// What a checkpoint in one file says about itself.
    pub own_words: OwnWords,
    /// The other family that they tell of: the end of the sentence "this model is …".
    pub(super) other_family: Option<String>,
}

/// `unet/config.json`.
pub struct UNetConfig {
    pub sample_size: Option<u32>,
    pub in_channels: Option<u64>,
    /// How many blocks halve the picture, one after the other.
    pub levels: Option<usize>,
    /// The width of the guidance embedding that it takes, if it was distilled with one.
    pub guidance_width: Option<u64>,
    first_channels: Option<u64>,
    first_heads: Option<u64>,
    pub(super) file: ConfigFile,
}

/// `config.json` of the VAE.
#[derive(Default)]
pub struct VaeConfig {
    levels: Option<usize>,
    first_channels: Option<u64>,
    latent_channels: Option<u32>,
    scaling_factor: Option<f32>,
    pub(super) file: Option<ConfigFile>,
}

/// `text_encoder/config.json`.
#[derive(Default)]
pub struct TextEncoderConfig {
    /// How many layers to use, if the file says so. The weights may have more.
    pub hidden_layers: Option<u32>,
    pub(super) file: Option<ConfigFile>,
}

/// Our own file beside the others, for what their formats have no word for.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct StablehandConfig {
    /// The largest side that the model draws well, in pixels.
    pub max_side: Option<u32>,
    /// The scheduler that suits the model, for requests that name none.
    pub scheduler: Option<String>,
    /// How its steps are spaced.
    pub spacing: Option<String>,
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
        let index = place.config("model_index.json")?;
        let index: ModelIndex = index.map(|file| file.as_value()).transpose()?.unwrap_or_default();
        let unet = place.config("unet/config.json")?;
        let has_second_text_encoder = match place {
            ModelPlace::Folder(path) => path.join("text_encoder_2").exists(),
            ModelPlace::Embedded | ModelPlace::Checkpoint { .. } => false,
        };
        let conditioning = unet.as_ref().map(ConfigFile::as_value::<UNetConditioning>).transpose()?;
        let conditioning = conditioning.unwrap_or_default();
        let other_family = ModelFamily::other_by_configs(&index, &conditioning, has_second_text_encoder);
        let scheduler = place.config(SCHEDULER_FILE)?.map(|file| scheduler(&file)).transpose()?;
        let own_words = OwnWords::read(place)?;
        let mut vae = VaeConfig::read(place)?;
        vae.scaling_factor = own_words.scaling_factor().or(vae.scaling_factor);
        Ok(Self {
            unet: unet.map(UNetConfig::read).transpose()?,
            vae,
            text_encoder: TextEncoderConfig::read(place)?,
            scheduler: own_words.over(scheduler),
            stablehand: place
                .config(STABLEHAND_FILE)?
                .map(|file| file.as_value())
                .transpose()?
                .unwrap_or_default(),
            own_words,
            other_family,
        })
    }
}

fn scheduler(file: &ConfigFile) -> Result<SchedulerConfig, FileError> {
    // Their noise follows other laws, so that no scheduler here draws with their models.
    if let Some(class) = file
        .text("_class_name")?
        .filter(|class| ["FlowMatch", "EDM"].iter().any(|other| class.contains(other)))
    {
        let reason = format!("its class is {class:.60}, which no Stable Diffusion v1 model has");
        return Err(FileError::Config { file: SCHEDULER_FILE.to_owned(), reason });
    }
    SchedulerConfig::from_value(&file.as_value()?)
        .map_err(|error| FileError::Config { file: SCHEDULER_FILE.to_owned(), reason: error.to_string() })
}

impl UNetConfig {
    fn read(file: ConfigFile) -> Result<Self, FileError> {
        Ok(Self {
            sample_size: file.count("sample_size", LARGEST_SIDE)?,
            in_channels: file.whole("in_channels")?,
            levels: file.length("down_block_types")?,
            guidance_width: file.whole("time_cond_proj_dim")?,
            first_channels: file.whole("block_out_channels")?,
            first_heads: file.whole("attention_head_dim")?,
            file,
        })
    }

    /// The channels of its input.
    pub fn channels(&self) -> Option<usize> {
        usize::try_from(self.in_channels?).ok()
    }

    /// Features of the first level, where the maps are largest.
    pub fn first_channels(&self) -> Option<u64> {
        self.first_channels
    }

    /// Attention heads of the first level. (It is the number of heads, whatever the key's name says: diffusers keeps an
    /// early mistake.)
    pub fn first_heads(&self) -> Option<u64> {
        self.first_heads
    }
}

impl TextEncoderConfig {
    fn read(place: &ModelPlace) -> Result<Self, FileError> {
        let Some(file) = place.config("text_encoder/config.json")? else { return Ok(Self::default()) };
        Ok(Self { hidden_layers: file.count("num_hidden_layers", MOST_LAYERS)?, file: Some(file) })
    }
}

impl VaeConfig {
    /// SD v1's own number. optimum takes 8 where its configuration has none, and draws grey.
    pub const SD_V1_SCALING_FACTOR: f32 = 0.18215;

    /// Exporters put the file beside either half, or where the weights were.
    fn read(place: &ModelPlace) -> Result<Self, FileError> {
        for folder in ["vae_decoder", "vae_encoder", "vae"] {
            let Some(file) = place.config(&format!("{folder}/config.json"))? else { continue };
            let factor = file.number("scaling_factor")?;
            if factor.is_some_and(|factor| !(factor.is_finite() && factor > 0.0)) {
                return Err(file.wrong("scaling_factor", "a positive number"));
            }
            return Ok(Self {
                levels: file.length("block_out_channels")?,
                first_channels: file.whole("block_out_channels")?,
                latent_channels: file.count("latent_channels", 64)?,
                #[expect(clippy::cast_possible_truncation, reason = "it scales latents in f32")]
                scaling_factor: factor.map(|factor| factor as f32),
                file: Some(file),
            });
        }
        Ok(Self::default())
    }

    /// Pixels along one side of a latent.
    pub fn scale_factor(&self) -> u32 {
        halvings(self.levels.unwrap_or(4))
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
        self.first_channels
    }
}

/// By how much a net of so many levels makes its input smaller: each level after the first halves it.
pub fn halvings(levels: usize) -> u32 {
    1 << u32::try_from(levels.saturating_sub(1)).unwrap_or(0).min(8)
}
