//! Estimates a model's memory: the weights from its files, the rest from what its layers hold at once.
//!
//! The estimate decides which models fit beside each other, and refuses jobs that can never fit. Nothing is loaded for it.

use crate::diffusion::files::{FileError, ModelFiles, PartFiles, PartGraph, UNetConfig};
use crate::diffusion::nets::{pixels_per_call, plain_build};
use crate::domain::{ImageSize, ModelPart};
use crate::runtime::Device;

/// The memory that a model takes on one device.
#[derive(Debug, Clone, Copy)]
pub struct MemoryNeeds {
    /// Bytes.
    weights: u64,
    /// Those of them that LoRAs change: a second copy of them is held with LoRAs.
    adaptable: u64,
    /// Whether all attention scores are held at once, as in exported graphs. Ours do not.
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

const F32: u64 = 4;
/// Values that the UNet holds at once for each latent pixel and feature of its first level: the skip connections, and a
/// feed-forward's gates (eight times as wide, twice).
const UNET_MAPS: u64 = 32;
/// The same for the VAE, for each pixel: four maps twice as wide as the last level.
const VAE_MAPS: u64 = 8;
/// The scores of attention, and their softmax.
const ATTENTION_MAPS: u64 = 2;

impl MemoryNeeds {
    /// For the model with these files on `device`.
    pub(super) fn from_files(files: &ModelFiles, device: &Device) -> Result<Self, FileError> {
        let (unet, vae) = (files.configs.unet.as_ref(), &files.configs.vae);
        let (mut weights, mut adaptable) = (0, 0);
        for part in files.parts() {
            let ours = weight_bytes(part, device)?;
            weights += ours.unwrap_or_else(|| exported_bytes(part, device));
            if ModelPart::ADAPTABLE.contains(&part.part()) {
                adaptable += ours.unwrap_or(0);
            }
        }
        Ok(Self {
            weights,
            adaptable,
            holds_scores: !files.part(ModelPart::UNet).is_some_and(PartFiles::takes_our_graph),
            unet_channels: unet.and_then(UNetConfig::first_channels).unwrap_or(320),
            heads: unet.and_then(UNetConfig::first_heads).unwrap_or(8),
            vae_channels: vae.first_channels().unwrap_or(128),
            scale: u64::from(vae.scale_factor()),
            native_side: unet.and_then(|unet| unet.sample_size).unwrap_or(64) * vae.scale_factor(),
        })
    }

    /// In bytes, for a picture of the model's own size with `rows` rows in a UNet call.
    pub fn usual(&self, rows: u64) -> u64 {
        let side = self.native_side;
        self.bytes_for(ImageSize { width: side, height: side }, 1, rows)
    }

    /// The additional bytes for a merged copy of the parts that LoRAs change.
    pub fn merged_copy(&self) -> u64 {
        self.adaptable
    }

    /// In bytes, for `outputs` pictures of that size with `rows` rows in one UNet call.
    pub fn bytes_for(&self, size: ImageSize, outputs: u64, rows: u64) -> u64 {
        let pixels = u64::from(size.width) * u64::from(size.height);
        let latents = pixels / (self.scale * self.scale).max(1);
        let maps = latents * self.unet_channels * UNET_MAPS;
        let scores = |latents: u64| if self.holds_scores { latents * latents * ATTENTION_MAPS } else { 0 };
        let attention = self.heads * scores(latents);
        let in_vae = pixels_per_call(pixels);
        let latents_in_vae = in_vae / (self.scale * self.scale).max(1);
        let vae = in_vae * self.vae_channels * VAE_MAPS + scores(latents_in_vae);
        // Sessions keep the memory that they once had. The pictures themselves: a few copies of three values.
        self.weights + (rows * (maps + attention) + vae + outputs * pixels * 12) * F32
    }
}

/// The bytes of a part's weights in one of our graphs. `None` if the part has its own graph.
pub(super) fn weight_bytes(part: &PartFiles, device: &Device) -> Result<Option<u64>, FileError> {
    Ok(match part.graph(plain_build(device))? {
        PartGraph::Weightless(graph) => Some(graph.length() as u64),
        PartGraph::Onnx(_) => None,
    })
}

/// Bytes of an exported part's weights in memory, estimated from its files.
fn exported_bytes(part: &PartFiles, device: &Device) -> u64 {
    let bytes: u64 = part.list().iter().map(|(_, bytes)| bytes).sum();
    // A CPU computes in single precision.
    if device.is_cpu() && part.is_half_by_name() { bytes * 2 } else { bytes }
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
        SD1.bytes_for(ImageSize { width: side, height: side }, 1, rows) - SD1.weights
    }

    #[test]
    fn stable_diffusion_takes_a_few_gigabytes_and_more_for_larger_pictures() {
        // Attention alone: two rows of eight heads of 4096 × 4096 values, twice.
        assert!((2 << 30..5 << 30).contains(&at(512, 2)), "{}", at(512, 2));
        assert!(at(512, 1) < at(512, 2) && at(512, 2) < at(768, 2));
        assert_eq!(SD1.usual(2), SD1.weights + at(512, 2));
        let ours = MemoryNeeds { holds_scores: false, ..SD1 };
        assert!(ours.usual(2) < SD1.usual(2) - (2 << 30));
    }

    #[test]
    fn the_built_in_model_takes_little() {
        let needs = MemoryNeeds::from_files(&ModelFiles::open(None).unwrap().0, &Device::Cpu).unwrap();
        assert_eq!((needs.unet_channels, needs.heads, needs.scale), (48, 4, 8));
        assert!((10_000_000..200_000_000).contains(&needs.usual(2)), "{needs:?}");
    }
}
