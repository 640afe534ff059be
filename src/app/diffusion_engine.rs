//! The real engine: the diffusion pipeline as the worker drives it.

use std::time::Instant;

use crate::diffusion::models::ModelFolder;
use crate::diffusion::{AddOns, DiffusionError, Generation, Pipeline};
use crate::domain::{EndpointId, GenerationInput, NewImage};
use crate::engine::{Engine, EngineError, Model, Placement};
use crate::runtime::{DeviceChoice, Runtime};

/// A model folder and where it is to be loaded.
#[derive(Debug, Clone)]
pub struct PipelineModel {
    pub endpoint: EndpointId,
    pub folder: ModelFolder,
    /// Where the model takes LoRAs and learned words.
    pub add_ons: Option<AddOns>,
    pub device: DeviceChoice,
    /// What models may take of that device's memory together; none is the usual share.
    pub memory_budget: Option<u64>,
}

impl Model for PipelineModel {
    type Engine = Pipeline;

    fn placement(&self) -> Result<Placement, EngineError> {
        let runtime = Runtime::load(self.device).map_err(EngineError::of)?;
        let device = runtime.device().clone();
        let needs = self.folder.memory_needs(&device).map_err(EngineError::of)?.usual();
        let budget = self.memory_budget.or_else(|| device.usual_budget());
        Ok(Placement { device, needs, budget })
    }

    fn load(&self) -> Result<Pipeline, EngineError> {
        let started = Instant::now();
        let runtime = Runtime::load(self.device).map_err(EngineError::of)?;
        let mut pipeline = Pipeline::load(&self.folder, &runtime).map_err(EngineError::of)?;
        if let Some(add_ons) = &self.add_ons {
            pipeline = pipeline.with_add_ons(add_ons, &self.folder, &runtime);
        }
        let model = self.folder.name();
        for warning in pipeline.warnings() {
            tracing::warn!(model, "{warning}");
        }
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(endpoint = %self.endpoint, model, device = %runtime.device(), duration_ms, "ready to draw");
        Ok(pipeline)
    }
}

impl Engine for Pipeline {
    type Generation = Generation;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Generation, EngineError> {
        Ok(Pipeline::begin(self, input, seed)?)
    }

    fn step(&mut self, batch: &mut [&mut Generation]) -> Result<(), EngineError> {
        Ok(Pipeline::step(self, batch)?)
    }

    fn progress(&self, generation: &Generation) -> (u32, u32) {
        generation.progress()
    }

    fn preview(&mut self, generation: &Generation) -> Option<Vec<u8>> {
        Pipeline::preview(self, generation)
    }

    fn finish(&mut self, generation: Generation) -> Result<Vec<NewImage>, EngineError> {
        let pictures = Pipeline::finish(self, &generation)?;
        let images = pictures.into_iter().map(|picture| NewImage {
            seed: picture.seed,
            // What was flagged leaves the worker's memory no more.
            png: (!picture.flagged).then_some(picture.png),
        });
        Ok(images.collect())
    }

    /// A CPU is full with one job; a GPU steps several for little more than the time of one.
    fn capacity(&self) -> usize {
        if Pipeline::device(self).is_cpu() { 1 } else { 4 }
    }

    fn memory(&self) -> u64 {
        Pipeline::memory(self)
    }

    fn memory_for(&self, input: &GenerationInput) -> u64 {
        Pipeline::memory_for(self, input)
    }
}

/// What ONNX Runtime and the libraries under it say when memory does not suffice.
const OUT_OF_MEMORY: [&str; 6] = [
    "Failed to allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "bad_alloc",
    "bad allocation",
];

impl EngineError {
    fn of(error: impl std::fmt::Display) -> Self {
        let reason = error.to_string();
        if OUT_OF_MEMORY.iter().any(|sign| reason.contains(sign)) {
            Self::OutOfMemory(reason)
        } else {
            Self::Other(reason)
        }
    }
}

impl From<DiffusionError> for EngineError {
    fn from(error: DiffusionError) -> Self {
        Self::of(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_of_memory_is_told_from_other_failures() {
        for reason in [
            "the model's unet failed: Non-zero status code returned while running MatMul node. Status Message: \
             bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 1073741824",
            "the model's unet failed: CUDA failure 2: out of memory ; GPU=0 ; hostname=box",
            "the model's vae_decoder failed: CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
            "the model's unet cannot be used: std::bad_alloc",
        ] {
            assert_eq!(EngineError::of(reason), EngineError::OutOfMemory(reason.to_owned()));
        }
        let other = "the model's unet failed: Got invalid dimensions for input";
        assert_eq!(EngineError::of(other), EngineError::Other(other.to_owned()));
    }
}
