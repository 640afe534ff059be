//! How much memory a model takes: its weights by its files, the rest by what its layers are known to hold at once.
//!
//! An estimate, to choose what fits beside what and to refuse what never could; made without loading anything.

use serde::Deserialize;

use crate::diffusion::files::ModelFolder;
use crate::diffusion::nets::{ModelError, pixels_per_call};
use crate::domain::{ImageSize, ModelPart};
use crate::runtime::Device;

/// What a model takes on one device.
#[derive(Debug, Clone, Copy)]
pub struct MemoryNeeds {
    /// Bytes.
    weights: u64,
    /// Of them, those that LoRAs change: held once more with them.
    adaptable: u64,
    /// Whether attention's scores are held all at once, as in exported graphs; not so in ours.
    holds_scores: bool,
    /// Features and attention heads of the UNet's first level, where the maps are largest.
    unet_channels: u64,
    heads: u64,
    /// Features of the VAE's level that has the picture's own size.
    vae_channels: u64,
    /// Pixels along one side of a latent.
    scale: u64,
    native_side: u32,
}

#[derive(Deserialize, Default)]
struct UNetConfig {
    block_out_channels: Option<Vec<u64>>,
    attention_head_dim: Option<Heads>,
}

/// One number, or one a level. (The number of heads, whatever the name says: diffusers keeps an early mistake.)
#[derive(Deserialize)]
#[serde(untagged)]
enum Heads {
    Everywhere(u64),
    ByLevel(Vec<u64>),
}

#[derive(Deserialize, Default)]
struct VaeConfig {
    block_out_channels: Option<Vec<u64>>,
}

const F32: u64 = 4;
/// Values that the UNet holds at once for each latent pixel and feature of its first level: what the way up
/// takes over from the way down, and a feed-forward's gates (eight times as wide, twice).
const UNET_MAPS: u64 = 32;
/// The same for the VAE, by picture pixel: four maps twice as wide as the last level.
const VAE_MAPS: u64 = 8;
/// The scores of attention, and their softmax.
const ATTENTION_MAPS: u64 = 2;

impl ModelFolder {
    /// What the model takes on `device`.
    pub fn memory_needs(&self, device: &Device) -> Result<MemoryNeeds, ModelError> {
        let description = self.describe()?;
        let unet: UNetConfig = self.config("unet/config.json")?.unwrap_or_default();
        let vae: VaeConfig = match self.config("vae_decoder/config.json")? {
            Some(config) => config,
            None => self.config("vae/config.json")?.unwrap_or_default(),
        };
        let first = |channels: Option<Vec<u64>>| channels.and_then(|channels| channels.first().copied());
        let heads = match unet.attention_head_dim {
            Some(Heads::Everywhere(heads)) => Some(heads),
            Some(Heads::ByLevel(heads)) => heads.first().copied(),
            None => None,
        };
        let (mut weights, mut adaptable) = (0, 0);
        for part in ModelPart::ALL.into_iter().filter(|part| self.has(*part)) {
            weights += self.weights_of(part, device)?;
            if ModelPart::ADAPTABLE.contains(&part) {
                adaptable += self.weight_bytes(part, device)?;
            }
        }
        Ok(MemoryNeeds {
            weights,
            adaptable,
            holds_scores: self.checkpoint(ModelPart::UNet)?.is_none(),
            unet_channels: first(unet.block_out_channels).unwrap_or(320),
            heads: heads.unwrap_or(8),
            vae_channels: first(vae.block_out_channels).unwrap_or(128),
            scale: u64::from(description.vae_scale_factor),
            native_side: description.native_side,
        })
    }

    /// The weights of `part` as they are held: by our graph where it takes that, else by its files.
    fn weights_of(&self, part: ModelPart, device: &Device) -> Result<u64, ModelError> {
        let exactly = self.weight_bytes(part, device)?;
        if exactly > 0 {
            return Ok(exactly);
        }
        let bytes: u64 = self.files_of(part).iter().map(|(_, bytes)| bytes).sum();
        let is_half = device.is_cpu() && self.graph_file(part)?.contains("fp16");
        // A CPU computes in single precision.
        Ok(if is_half { bytes * 2 } else { bytes })
    }
}

impl MemoryNeeds {
    /// For one guided picture of the model's own size.
    pub fn usual(&self) -> u64 {
        let side = self.native_side;
        self.of(ImageSize { width: side, height: side }, 1, 2)
    }

    /// What a set of LoRAs takes besides.
    pub fn adapted(&self) -> u64 {
        self.adaptable
    }

    /// For `outputs` pictures of that size, of which the UNet sees `rows` rows at once.
    pub fn of(&self, size: ImageSize, outputs: u64, rows: u64) -> u64 {
        let pixels = u64::from(size.width) * u64::from(size.height);
        let latents = pixels / (self.scale * self.scale).max(1);
        let maps = latents * self.unet_channels * UNET_MAPS;
        let scores = |latents: u64| if self.holds_scores { latents * latents * ATTENTION_MAPS } else { 0 };
        let attention = self.heads * scores(latents);
        let in_vae = pixels_per_call(pixels);
        let latents_in_vae = in_vae / (self.scale * self.scale).max(1);
        let vae = in_vae * self.vae_channels * VAE_MAPS + scores(latents_in_vae);
        // Both keep what they once had. The pictures themselves: a few copies of three values.
        self.weights + (rows * (maps + attention) + vae + outputs * pixels * 12) * F32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD1: MemoryNeeds = MemoryNeeds {
        weights: 4_300_000_000,
        adaptable: 3_900_000_000,
        holds_scores: true,
        unet_channels: 320,
        heads: 8,
        vae_channels: 128,
        scale: 8,
        native_side: 512,
    };

    fn at(side: u32, rows: u64) -> u64 {
        SD1.of(ImageSize { width: side, height: side }, 1, rows) - SD1.weights
    }

    #[test]
    fn stable_diffusion_takes_a_few_gigabytes_and_more_for_larger_pictures() {
        // Attention alone: two rows of eight heads of 4096 × 4096 values, twice.
        assert!((2 << 30..5 << 30).contains(&at(512, 2)), "{}", at(512, 2));
        assert!(at(512, 1) < at(512, 2) && at(512, 2) < at(768, 2));
        assert_eq!(SD1.usual(), SD1.weights + at(512, 2));
        let ours = MemoryNeeds { holds_scores: false, ..SD1 };
        assert!(ours.usual() < SD1.usual() - (2 << 30));
    }

    #[test]
    fn the_built_in_model_takes_little() {
        let needs = ModelFolder::Embedded.memory_needs(&Device::Cpu).unwrap();
        assert_eq!((needs.unet_channels, needs.heads, needs.scale), (48, 4, 8));
        assert!((10_000_000..200_000_000).contains(&needs.usual()), "{needs:?}");
    }
}
