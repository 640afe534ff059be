//! Latents to pixels, once more in float32 where half precision does not suffice.
//!
//! The VAE of some checkpoints has values beyond 65504, the largest of float16, and what comes of them is not a number.
//! Most pictures of such a VAE are fine, so each is decoded as usual first.

use ndarray::Array4;

use super::{DiffusionError, Model};
use crate::diffusion::nets::{ModelError, PartSession, VaeDecoder};
use crate::domain::ModelPart;
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
    Unloaded(Model, Runtime),
    Loaded(VaeDecoder),
}

impl Decoding {
    pub fn new(usual: VaeDecoder, model: &Model, runtime: &Runtime) -> Self {
        let float32 = match runtime.device().is_cpu() {
            true => Float32::None,
            false => Float32::Unloaded(model.clone(), runtime.clone()),
        };
        Self { usual, float32 }
    }

    /// Pixels `[images, 3, height, width]` of latents.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<Array4<f32>, DiffusionError> {
        let pixels = self.usual.decode(latents)?;
        if is_finite(&pixels) {
            return Ok(pixels);
        }
        if let Float32::Unloaded(model, runtime) = &self.float32 {
            tracing::warn!(
                "the model's VAE overflows in half precision: such pictures are decoded in float32"
            );
            self.float32 = match float32_decoder(model, runtime)? {
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

/// None where the graph comes with its weights, in its own precision.
fn float32_decoder(model: &Model, runtime: &Runtime) -> Result<Option<VaeDecoder>, ModelError> {
    let files = model.files.part(ModelPart::VaeDecoder);
    let session = files.map(|files| PartSession::load_float32(files, runtime)).transpose()?.flatten();
    session.map(|session| VaeDecoder::new(session, &model.files.configs.vae)).transpose()
}

/// Whether all values are numbers, and finite ones.
pub(super) fn is_finite(values: &Array4<f32>) -> bool {
    values.iter().all(|value| value.is_finite())
}
