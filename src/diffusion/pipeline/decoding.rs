//! Latents to pixels, once more in float32 where half precision does not suffice.
//!
//! The VAE of some checkpoints has values beyond 65504, the largest of float16, and what comes of them is not a number.
//! Most pictures of such a VAE are fine, so each is decoded as usual first.

use ndarray::Array4;

use super::{DiffusionError, ModelDescription};
use crate::diffusion::files::ModelFolder;
use crate::diffusion::nets::{ModelError, VaeDecoder};
use crate::runtime::Runtime;

/// The VAE's decoder, and its twin in float32 once one is needed.
pub(super) struct Decoding {
    usual: VaeDecoder,
    float32: Float32,
}

enum Float32 {
    /// The usual one computes in float32 itself, or its graph exists in one precision only.
    None,
    /// Not needed so far: what it would be loaded from.
    Unloaded(ModelFolder, Runtime),
    Loaded(VaeDecoder),
}

impl Decoding {
    pub fn load(
        folder: &ModelFolder,
        description: &ModelDescription,
        runtime: &Runtime,
    ) -> Result<Self, ModelError> {
        let usual = VaeDecoder::load(folder, description, runtime)?;
        let float32 = match runtime.device().is_cpu() {
            true => Float32::None,
            false => Float32::Unloaded(folder.clone(), runtime.clone()),
        };
        Ok(Self { usual, float32 })
    }

    /// Pixels `[images, 3, height, width]` of latents.
    pub fn decode(
        &mut self,
        latents: &Array4<f32>,
        description: &ModelDescription,
    ) -> Result<Array4<f32>, DiffusionError> {
        let pixels = self.usual.decode(latents)?;
        if is_finite(&pixels) {
            return Ok(pixels);
        }
        if let Float32::Unloaded(folder, runtime) = &self.float32 {
            tracing::warn!(
                "the model's VAE overflows in half precision: such pictures are decoded in float32"
            );
            self.float32 = match VaeDecoder::load_float32(folder, description, runtime)? {
                Some(decoder) => Float32::Loaded(decoder),
                None => Float32::None,
            };
        }
        let Float32::Loaded(decoder) = &mut self.float32 else { return Err(DiffusionError::Pixels) };
        let pixels = decoder.decode(latents)?;
        if is_finite(&pixels) { Ok(pixels) } else { Err(DiffusionError::Pixels) }
    }

    pub fn time_in_run(&self) -> std::time::Duration {
        let float32 = match &self.float32 {
            Float32::Loaded(decoder) => decoder.time_in_run(),
            Float32::None | Float32::Unloaded(..) => std::time::Duration::ZERO,
        };
        self.usual.time_in_run() + float32
    }
}

/// Whether all values are numbers, and finite ones.
pub(super) fn is_finite(values: &Array4<f32>) -> bool {
    values.iter().all(|value| value.is_finite())
}
