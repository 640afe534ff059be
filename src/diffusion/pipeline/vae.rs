//! The two halves of the VAE as a pipeline uses them: in float32 where half precision does not suffice.

use std::time::Duration;

use ndarray::Array4;

use super::float32::{Float32, is_finite};
use super::{DiffusionError, Model};
use crate::diffusion::nets::{Posterior, VaeDecoder, VaeEncoder};
use crate::domain::ModelPart;
use crate::runtime::Runtime;

/// Latents to pixels.
pub(super) struct Decoding {
    usual: VaeDecoder,
    float32: Float32<VaeDecoder>,
}

impl Decoding {
    pub fn new(usual: VaeDecoder, model: &Model, runtime: &Runtime) -> Self {
        Self { usual, float32: Float32::new(model, runtime) }
    }

    /// Whether its twin in float32 is loaded.
    pub fn has_float32(&self) -> bool {
        self.float32.loaded().is_some()
    }

    /// Pixels `[images, 3, height, width]` of latents.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<Array4<f32>, DiffusionError> {
        let mut pixels = self.usual.decode(latents)?;
        if !is_finite(&pixels) {
            let make = |session, model: &Model| VaeDecoder::new(session, &model.files.configs.vae);
            if let Some(decoder) = self.float32.get(ModelPart::VaeDecoder, make)? {
                pixels = decoder.decode(latents)?;
            }
        }
        if is_finite(&pixels) { Ok(pixels) } else { Err(DiffusionError::Vae) }
    }

    pub fn time_in_run(&self) -> Duration {
        self.usual.time_in_run() + self.float32.loaded().map_or(Duration::ZERO, VaeDecoder::time_in_run)
    }
}

/// Pixels to the distribution of their latents.
pub(super) struct Encoding {
    usual: VaeEncoder,
    float32: Float32<VaeEncoder>,
}

impl Encoding {
    pub fn new(usual: VaeEncoder, model: &Model, runtime: &Runtime) -> Self {
        Self { usual, float32: Float32::new(model, runtime) }
    }

    /// Whether its twin in float32 is loaded.
    pub fn has_float32(&self) -> bool {
        self.float32.loaded().is_some()
    }

    pub fn draws_by_itself(&self) -> bool {
        self.usual.draws_by_itself()
    }

    /// What `pixels`, `[images, 3, height, width]`, are to the UNet.
    pub fn encode(&mut self, pixels: &Array4<f32>) -> Result<Posterior, DiffusionError> {
        let mut posterior = self.usual.encode(pixels)?;
        if !posterior.is_finite() {
            let make = |session, model: &Model| VaeEncoder::new(session, &model.files.configs.vae);
            if let Some(encoder) = self.float32.get(ModelPart::VaeEncoder, make)? {
                posterior = encoder.encode(pixels)?;
            }
        }
        if posterior.is_finite() { Ok(posterior) } else { Err(DiffusionError::Vae) }
    }

    pub fn time_in_run(&self) -> Duration {
        self.usual.time_in_run() + self.float32.loaded().map_or(Duration::ZERO, VaeEncoder::time_in_run)
    }
}
