//! Estimates a model's memory: the weights from its files, the rest from what its layers hold at once.
//!
//! The estimates are the account that decides which models fit beside each other, which jobs wait, and which can never
//! run. Nothing is loaded for them. `working.rs` adds them up for the jobs of a batch.

use super::deep_features::Depth;
use crate::diffusion::files::{FileError, ModelFiles, PartFiles, PartGraph, UNetConfig};
use crate::diffusion::nets::{MOST_BOUND_BYTES, pixels_per_call, plain_build};
use crate::domain::{ImageSize, ModelPart};
use crate::runtime::{CpuSettings, CpuSpeed, Device};

/// The memory that a model takes on one device.
#[derive(Debug, Clone, Copy)]
pub struct MemoryNeeds {
    /// Bytes.
    weights: u64,
    /// The weights of the VAE once more in float32, on a card. Few models ever need them: they count from the first
    /// picture that overflows in half precision.
    float32_vae: u64,
    /// The safety checker's weights, which come on top where it is loaded.
    checker: u64,
    pub(super) is_on_cpu: bool,
    /// Whether all attention scores are held at once, as in exported graphs. Ours do not.
    holds_scores: bool,
    /// Bytes of a value between two layers.
    value: u64,
    /// Features and attention heads of the UNet's first level, where the maps are largest.
    unet_channels: u64,
    heads: u64,
    /// Features of the VAE's level that has the picture's own size.
    vae_channels: u64,
    /// Pixels along one side of a latent.
    scale: u64,
    native_side: u32,
    /// Of a processor, that our own convolutions run on. 0 where they do not.
    threads: u64,
}

const F32: u64 = 4;
const F16: u64 = 2;
/// Values that the UNet's outer layers hold at once for each latent pixel and feature of their level: the gates of their
/// feed-forward, and the maps around it.
const OUTER_MAPS: u64 = 28;
/// How often the deep features of a call are in memory on a CPU beside those that are kept: as a session gives or takes
/// them, and stacked.
const DEEP_COPIES: u64 = 2;
/// Values that the UNet holds at once for each latent pixel and feature of its first level: the skip connections, and a
/// feed-forward's gates (eight times as wide, twice). Our own linear layers need less.
const UNET_MAPS: u64 = 32;
/// The same for the VAE, for each pixel: four maps twice as wide as the last level.
const VAE_MAPS: u64 = 8;
/// Our own convolutions transform tiles of 4 × 4 values: these are a tile's, in one channel.
const TILE_VALUES: u64 = 36;
/// Tiles that a thread has transformed at a time, at most, with one as a distance.
const TILES_OF_A_THREAD: u64 = 65;
/// How often the features of the UNet's and the VAE's first level a convolution reads at most: the lowest level of the
/// UNet has four times as many, and its convolutions read two maps.
const UNET_WIDEST: u64 = 8;
const VAE_WIDEST: u64 = 4;
/// Maps of a tiny VAE at the picture's size: a block's input, two results of its convolutions, and one in another order.
const TINY_VAE_MAPS: u64 = 4;
/// The scores of attention, and their softmax.
const ATTENTION_MAPS: u64 = 2;
/// Values of a ControlNet's first layers for each pixel.
const HINT_VALUES: u64 = 64;
/// What a ControlNet gives, for each latent pixel and feature of the UNet's first level: five maps and a bit.
const RESIDUAL_MAPS: u64 = 6;
/// How often that is in memory on a CPU: for one ControlNet, for the sum and for the session.
const RESIDUAL_COPIES: u64 = 3;
/// The finished pictures, for each of their pixels: a few copies of three values.
const PICTURE_VALUES: u64 = 12;

impl MemoryNeeds {
    /// For the model with these files on `device`.
    pub(super) fn from_files(files: &ModelFiles, device: &Device) -> Result<Self, FileError> {
        let (unet, vae) = (files.configs.unet.as_ref(), &files.configs.vae);
        let (mut weights, mut float32_vae, mut checker) = (0, 0, 0);
        for part in files.parts() {
            let bytes = weight_bytes(part, device)?.unwrap_or_else(|| exported_bytes(part, device));
            match part.part() {
                ModelPart::SafetyChecker => checker += bytes,
                // Counted where a job asks for it.
                ModelPart::TinyVae => {}
                _ => weights += bytes,
            }
            weights += outer_layers_bytes(part, device)?;
            if !device.is_cpu() && [ModelPart::VaeDecoder, ModelPart::VaeEncoder].contains(&part.part()) {
                float32_vae += weight_bytes(part, &Device::Cpu)?.unwrap_or(0);
            }
        }
        let is_ours = files.part(ModelPart::UNet).is_some_and(PartFiles::takes_our_graph);
        Ok(Self {
            weights,
            float32_vae,
            checker,
            is_on_cpu: device.is_cpu(),
            holds_scores: !is_ours,
            value: if is_ours && !device.is_cpu() { F16 } else { F32 },
            unet_channels: unet.and_then(UNetConfig::first_channels).unwrap_or(320),
            heads: unet.and_then(UNetConfig::first_heads).unwrap_or(8),
            vae_channels: vae.first_channels().unwrap_or(128),
            scale: u64::from(vae.scale_factor()),
            native_side: unet.and_then(|unet| unet.sample_size).unwrap_or(64) * vae.scale_factor(),
            // As many as a session has at most, if nobody counted them.
            threads: if is_ours && device.is_cpu() {
                CpuSettings::default().thread_count() as u64
            } else {
                0
            },
        })
    }

    /// The same where a CPU draws with these settings. `auto` may choose our own convolutions.
    #[must_use]
    pub fn with_cpu(self, cpu: CpuSettings) -> Self {
        let may_be_ours = match cpu.speed {
            CpuSpeed::Fast => true,
            CpuSpeed::Memory => false,
            CpuSpeed::Auto => !self.is_small(),
        };
        self.with_own_convolutions(may_be_ours, cpu.thread_count())
    }

    /// The same where our own convolutions run on so many threads, or do not run.
    pub(super) fn with_own_convolutions(self, are_used: bool, threads: usize) -> Self {
        let threads = if self.threads > 0 && are_used { threads as u64 } else { 0 };
        Self { threads, ..self }
    }

    /// In bytes, for a picture of the model's own size with `rows` rows in a UNet call.
    pub fn usual(&self, rows: u64) -> u64 {
        let size = self.usual_size();
        self.weights + self.unet(size, rows) + self.vae(size) + self.pictures(size, 1)
    }

    /// The bytes of the weights that every picture needs.
    pub fn weights(&self) -> u64 {
        self.weights
    }

    /// The bytes of the tiles among what a picture of the model's own size takes, where our own convolutions draw it.
    pub fn usual_tiles(&self, rows: u64) -> u64 {
        let size = self.usual_size();
        let values = pixels(size);
        self.tiles(rows * self.latents(values), UNET_WIDEST * self.unet_channels)
            + self.tiles(pixels_per_call(values), VAE_WIDEST * self.vae_channels)
    }

    /// Whether its convolutions are too small to gain anything by our own: drawn with those, the built-in model takes 4 %
    /// longer (measured).
    pub(super) fn is_small(&self) -> bool {
        self.unet_channels < 128
    }

    /// The model's own size.
    pub fn usual_size(&self) -> ImageSize {
        ImageSize { width: self.native_side, height: self.native_side }
    }

    /// The additional bytes for the safety checker. 0 if the model has none that works.
    pub fn checker(&self) -> u64 {
        self.checker
    }

    /// The bytes that a UNet call of `rows` rows takes besides the weights.
    pub(super) fn unet(&self, size: ImageSize, rows: u64) -> u64 {
        let latents = self.latents(pixels(size));
        let maps = latents * self.unet_channels * UNET_MAPS;
        rows * (maps + self.heads * self.scores(latents)) * self.value
            + self.tiles(rows * latents, UNET_WIDEST * self.unet_channels)
    }

    /// The bytes that our own convolutions of images with so many values in a channel hold besides the images.
    fn tiles(&self, values: u64, channels: u64) -> u64 {
        values.div_ceil(16).min(self.threads * TILES_OF_A_THREAD) * channels * TILE_VALUES * F32
    }

    /// The same of a call of this depth.
    pub(super) fn unet_of(&self, depth: Depth, size: ImageSize, rows: u64) -> u64 {
        match depth {
            Depth::Whole => self.unet(size, rows),
            Depth::Outer => rows * self.latents(pixels(size)) * self.unet_channels * OUTER_MAPS * self.value,
        }
    }

    /// The bytes of so many rows' deep features, with calls of `in_call` rows. A card holds those of a call alone: where
    /// captured graphs have them, with padded rows.
    pub(super) fn deep_features(&self, size: ImageSize, rows: u64, in_call: u64) -> u64 {
        let of = |rows: u64| rows * self.latents(pixels(size)) * self.unet_channels * F32;
        match self.is_on_cpu {
            true => of(rows) + of(in_call) * DEEP_COPIES,
            false => of(in_call.next_power_of_two()) * Depth::ALL.len() as u64,
        }
    }

    /// The bytes that a ControlNet's call of `rows` rows takes besides the weights. Its layers are half of the UNet's.
    pub(super) fn control_call(&self, size: ImageSize, rows: u64) -> u64 {
        self.unet(size, rows) + self.hint(size)
    }

    /// The bytes that a ControlNet's layers for its picture take: maps of 16 features at the picture's size, and as much
    /// again for those behind them.
    fn hint(&self, size: ImageSize) -> u64 {
        pixels(size) * HINT_VALUES * self.value
    }

    /// The bytes of what so many ControlNets give, and of their sum. A card holds them where captured graphs have them: for
    /// the UNet and for each ControlNet, with padded rows.
    pub(super) fn residuals(&self, size: ImageSize, rows: u64, controlnets: u64) -> u64 {
        let of = |rows: u64| rows * self.latents(pixels(size)) * self.unet_channels * RESIDUAL_MAPS * F32;
        if self.is_on_cpu {
            of(rows) * RESIDUAL_COPIES
        } else {
            // Larger calls are not captured, and their rows are not padded.
            let padded = of(rows.next_power_of_two());
            (controlnets + 1) * if padded <= MOST_BOUND_BYTES as u64 { padded } else { of(rows) }
        }
    }

    /// The bytes that a call of one half of the VAE takes besides the weights.
    pub(super) fn vae(&self, size: ImageSize) -> u64 {
        let in_call = pixels_per_call(pixels(size));
        self.vae_values(size) * self.value + self.tiles(in_call, VAE_WIDEST * self.vae_channels)
    }

    /// The bytes that a call of a tiny decoder with layers of so many features takes besides the weights.
    pub(super) fn tiny_vae(&self, size: ImageSize, features: u64) -> u64 {
        pixels_per_call(pixels(size)) * features * TINY_VAE_MAPS * self.value_of_ours()
    }

    /// Bytes of a value in graphs of ours.
    fn value_of_ours(&self) -> u64 {
        if self.is_on_cpu { F32 } else { F16 }
    }

    /// The additional bytes for the VAE in float32, with its weights.
    pub(super) fn vae_in_float32(&self, size: ImageSize) -> u64 {
        self.float32_vae + self.vae_values(size) * F32
    }

    fn vae_values(&self, size: ImageSize) -> u64 {
        let in_call = pixels_per_call(pixels(size));
        in_call * self.vae_channels * VAE_MAPS + self.scores(self.latents(in_call))
    }

    /// The bytes of finished pictures. They are never on a card.
    pub(super) fn pictures(&self, size: ImageSize, outputs: u64) -> u64 {
        if self.is_on_cpu { outputs * pixels(size) * PICTURE_VALUES * F32 } else { 0 }
    }

    fn latents(&self, pixels: u64) -> u64 {
        pixels / (self.scale * self.scale).max(1)
    }

    fn scores(&self, latents: u64) -> u64 {
        if self.holds_scores { latents * latents * ATTENTION_MAPS } else { 0 }
    }
}

fn pixels(size: ImageSize) -> u64 {
    u64::from(size.width) * u64::from(size.height)
}

/// The bytes of a part's weights in one of our graphs. `None` if the part has its own graph.
pub(super) fn weight_bytes(part: &PartFiles, device: &Device) -> Result<Option<u64>, FileError> {
    Ok(match part.graph(plain_build(device))? {
        PartGraph::Weightless(graph) => Some(graph.length() as u64),
        PartGraph::Onnx(_) => None,
    })
}

/// The bytes of a part's outer layers, whose weights are on a card a second time.
pub(super) fn outer_layers_bytes(part: &PartFiles, device: &Device) -> Result<u64, FileError> {
    if device.is_cpu() {
        return Ok(0);
    }
    Ok(part.shallow_graph(plain_build(device))?.map_or(0, |graph| graph.weight_bytes() as u64))
}

/// The bytes of a UNet's quantised weights, which come on top of the others. Fails if none of its layers can be quantised.
pub(super) fn int8_bytes(unet: &PartFiles) -> Result<u64, FileError> {
    match unet.graph(plain_build(&Device::Cpu))? {
        PartGraph::Weightless(graph) => Ok(graph.in_int8()?.length() as u64),
        PartGraph::Onnx(_) => Err(FileError::Graph("it comes with its weights".to_owned())),
    }
}

/// Bytes of an exported part's weights in memory, estimated from its files.
fn exported_bytes(part: &PartFiles, device: &Device) -> u64 {
    let bytes: u64 = part.list().iter().map(|(_, bytes)| bytes).sum();
    // A CPU computes in single precision.
    if device.is_cpu() && part.is_half_by_name() { bytes * 2 } else { bytes }
}

#[cfg(test)]
pub(super) mod tests;
