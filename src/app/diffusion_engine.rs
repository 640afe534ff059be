//! The real engine: the diffusion pipeline as the worker drives it.

use std::time::Instant;

use crate::diffusion::{self, DiffusionError, Generation, Pipeline};
use crate::domain::{EndpointId, GenerationInput, NewImage};
use crate::engine::{Engine, EngineError, Model, Placement};
use crate::runtime::{DeviceChoice, Runtime, is_out_of_memory};

/// An opened model, and the device that it is loaded on.
#[derive(Debug, Clone)]
pub struct PipelineModel {
    pub endpoint: EndpointId,
    pub model: diffusion::Model,
    pub device: DeviceChoice,
    /// What models may take of that device's memory together; none is the usual share.
    pub memory_budget: Option<u64>,
}

/// Rows of a UNet call for one guided picture.
const GUIDED: u64 = 2;

impl Model for PipelineModel {
    type Engine = Pipeline;

    fn placement(&self) -> Result<Placement, EngineError> {
        let runtime = Runtime::load(self.device).map_err(EngineError::from_reason)?;
        let device = runtime.device().clone();
        let needs = self.model.memory_needs(&device).map_err(EngineError::from_reason)?.usual(GUIDED);
        let budget = self.memory_budget.or_else(|| device.usual_budget());
        Ok(Placement { device, needs, budget })
    }

    fn load(&self) -> Result<Pipeline, EngineError> {
        let started = Instant::now();
        let runtime = Runtime::load(self.device).map_err(EngineError::from_reason)?;
        let mut pipeline = self.model.load(&runtime).map_err(EngineError::from_reason)?;
        pipeline.measure_batching().map_err(EngineError::from_reason)?;
        let model = self.model.name();
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
            // Flagged pictures never leave the process.
            png: (!picture.flagged).then_some(picture.png),
        });
        Ok(images.collect())
    }

    /// As many jobs as one UNet call takes images: more would only wait for one another.
    fn capacity(&self) -> usize {
        self.batching().images
    }

    fn memory(&self) -> u64 {
        Pipeline::memory(self)
    }

    fn memory_for(&self, input: &GenerationInput) -> u64 {
        Pipeline::memory_for(self, input)
    }
}

impl EngineError {
    /// Separates running out of memory from other failures by the error's text.
    fn from_reason(error: impl std::fmt::Display) -> Self {
        let reason = error.to_string();
        if is_out_of_memory(&reason) { Self::OutOfMemory(reason) } else { Self::Other(reason) }
    }
}

impl From<DiffusionError> for EngineError {
    fn from(error: DiffusionError) -> Self {
        Self::from_reason(error)
    }
}
