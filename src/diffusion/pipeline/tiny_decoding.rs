//! The tiny VAE as a pipeline uses it: loaded when a request first asks for it.
//!
//! It decodes only. Pictures that a request brings are encoded by the model's own VAE, so that they mean the same latents
//! with both.

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array4;

use super::float32::is_finite;
use super::memory::weight_bytes;
use super::{DiffusionError, Model};
use crate::diffusion::files::{AddOnFile, TinyVae};
use crate::diffusion::nets::{PartSession, VaeDecoder};
use crate::runtime::Runtime;

pub(super) struct TinyDecoding {
    found: Arc<TinyVae>,
    model: Model,
    runtime: Runtime,
    /// The file that it is of, if it is not the model's own.
    loaded: Option<(Option<AddOnFile>, VaeDecoder)>,
}

impl TinyDecoding {
    pub fn new(model: &Model, runtime: &Runtime) -> Self {
        let found = Arc::clone(&model.tiny_vae);
        Self { found, model: model.clone(), runtime: runtime.clone(), loaded: None }
    }

    /// Loads it, if it is not loaded yet or its file is another one now.
    pub fn load(&mut self) -> Result<&mut VaeDecoder, DiffusionError> {
        let found = self.found.file().map_err(|reason| DiffusionError::TinyVae(sentence(&reason)))?;
        let loaded = self.loaded.take().filter(|(file, _)| *file == found.file);
        let loaded = if let Some(loaded) = loaded {
            loaded
        } else {
            let session = PartSession::load(&found.files, &self.runtime)?;
            (found.file, VaeDecoder::tiny(session, &self.model.files.configs.vae)?)
        };
        Ok(&mut self.loaded.insert(loaded).1)
    }

    /// Pixels `[images, 3, height, width]` of latents.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<Array4<f32>, DiffusionError> {
        let pixels = self.load()?.decode(latents)?;
        if is_finite(&pixels) { Ok(pixels) } else { Err(DiffusionError::Vae) }
    }

    /// What tells its pictures from those of another tiny VAE.
    pub fn stamp(&self) -> Option<&AddOnFile> {
        self.loaded.as_ref().and_then(|(file, _)| file.as_ref())
    }

    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// The bytes of its weights, and the features of its layers. None where there is no tiny VAE.
    pub fn size(&self) -> Option<(u64, u64)> {
        let files = self.found.file().ok()?.files;
        let bytes = weight_bytes(&files, self.runtime.device()).ok()??;
        let width = files.shape("decoder.layers.0.weight")?.first().copied()?;
        Some((bytes, width as u64))
    }

    pub fn time_in_run(&self) -> Duration {
        self.loaded.as_ref().map_or(Duration::ZERO, |(_, decoder)| decoder.time_in_run())
    }
}

/// For a job that was taken when there was a tiny VAE.
fn sentence(reason: &str) -> String {
    format!("the tiny VAE is not there any more: {reason}")
}

#[cfg(test)]
mod tests;
