//! The real engine: the diffusion pipeline as the worker drives it.

use std::time::Instant;

use crate::diffusion::{
    self, Adaptation, DiffusionError, Generation, Made, Pipeline, Prepared, Upscaling, batch_rows,
};
use crate::domain::{EndpointId, GenerationInput, NewImage};
use crate::engine::{Engine, EngineError, Make, Model, Placement, Preparation, PreparationOf, Spare};
use crate::runtime::{CpuSettings, Device, DeviceChoice, Runtime, is_out_of_memory};

/// An opened model, and the device that it is loaded on.
#[derive(Debug, Clone)]
pub struct PipelineModel {
    pub endpoint: EndpointId,
    pub model: diffusion::Model,
    pub device: DeviceChoice,
    /// How one of its workers uses the processor.
    pub cpu: CpuSettings,
    /// What models may take of that device's memory together; none is the usual share.
    pub memory_budget: Option<u64>,
}

impl PipelineModel {
    fn runtime(&self) -> Result<Runtime, EngineError> {
        let runtime = Runtime::load(self.device).map_err(EngineError::from_reason)?;
        Ok(runtime.with_cpu(self.cpu))
    }

    /// The placement on `device`, and the rows of the largest UNet call that it has room for.
    fn plan(&self, device: &Device) -> Result<(Placement, u64), EngineError> {
        let needs = self.model.memory_needs(device).map_err(EngineError::from_reason)?.with_cpu(self.cpu);
        let budget = device.budget(self.memory_budget);
        let rows = batch_rows(device, budget, |rows| needs.usual(rows));
        Ok((Placement { device: device.clone(), needs: needs.usual(rows), budget }, rows))
    }
}

impl Model for PipelineModel {
    type Engine = Pipeline;

    fn placement(&self) -> Result<Placement, EngineError> {
        let runtime = self.runtime()?;
        Ok(self.plan(runtime.device())?.0)
    }

    fn load(&self) -> Result<Pipeline, EngineError> {
        let started = Instant::now();
        let runtime = self.runtime()?;
        let mut pipeline = self.model.load(&runtime).map_err(EngineError::from_reason)?;
        let (_, most_rows) = self.plan(runtime.device())?;
        pipeline.measure_batching(most_rows).map_err(EngineError::from_reason)?;
        let model = self.model.name();
        for warning in pipeline.warnings() {
            tracing::warn!(model, "{warning}");
        }
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (device, means) = (runtime.device(), pipeline.means());
        tracing::info!(endpoint = %self.endpoint, model, %device, means, duration_ms, "ready to draw");
        Ok(pipeline)
    }
}

/// A job in progress.
pub enum Work {
    Drawing(Box<Generation>),
    /// With the seed that names its picture.
    Upscaling(Box<Upscaling>, u64),
}

impl Engine for Pipeline {
    type Generation = Work;
    /// The model's parts with the job's LoRAs, and its ControlNets.
    type Prepared = Prepared;
    type Made = Made;

    fn prepare(&mut self, input: &GenerationInput) -> Result<PreparationOf<Self>, EngineError> {
        Ok(match self.adapt(input)? {
            Adaptation::Ready(prepared) => {
                let bytes = prepared.held();
                Preparation::ready(prepared, bytes)
            }
            Adaptation::Make(making) => {
                let (keys, bytes, ready) = (making.keys(), making.bytes(), making.ready_bytes());
                let make: Make<Made> = Box::new(move |given_up| Ok(making.run(given_up)?));
                Preparation::to_make(keys, bytes, ready, make)
            }
        })
    }

    fn keep(&mut self, made: Made) -> Prepared {
        Pipeline::keep(self, made)
    }

    fn begin(&mut self, prepared: Prepared, input: &GenerationInput, seed: u64) -> Result<Work, EngineError> {
        if let Some(upscaling) = self.begin_upscaling(input)? {
            return Ok(Work::Upscaling(Box::new(upscaling), seed));
        }
        Ok(Work::Drawing(Box::new(self.begin_with(prepared, input, seed)?)))
    }

    fn step(&mut self, batch: &mut [&mut Work]) -> Result<(), EngineError> {
        let mut drawing = Vec::with_capacity(batch.len());
        for work in batch {
            match work {
                Work::Drawing(generation) => drawing.push(&mut **generation),
                Work::Upscaling(upscaling, _) => upscaling.step()?,
            }
        }
        Ok(Pipeline::step(self, &mut drawing)?)
    }

    fn progress(&self, work: &Work) -> (u32, u32) {
        match work {
            Work::Drawing(generation) => generation.progress(),
            Work::Upscaling(upscaling, _) => upscaling.progress(),
        }
    }

    fn preview(&mut self, work: &Work) -> Option<Vec<u8>> {
        match work {
            Work::Drawing(generation) => Pipeline::preview(self, generation),
            Work::Upscaling(..) => None,
        }
    }

    fn warnings(&self, work: &Work) -> Vec<String> {
        match work {
            Work::Drawing(generation) => generation.warnings().to_vec(),
            Work::Upscaling(..) => Vec::new(),
        }
    }

    fn save(&self, work: &Work) -> Option<Vec<u8>> {
        match work {
            Work::Drawing(generation) => Pipeline::save(self, generation),
            Work::Upscaling(..) => None,
        }
    }

    fn resume(&mut self, work: &mut Work, saved: &[u8]) -> Result<bool, EngineError> {
        match work {
            Work::Drawing(generation) => Ok(Pipeline::resume(self, generation, saved)?),
            Work::Upscaling(..) => Ok(false),
        }
    }

    fn cut_short(&mut self, work: &mut Work) -> Result<(), EngineError> {
        match work {
            Work::Drawing(generation) => Ok(Pipeline::cut_short(self, generation)?),
            // Half of the tiles are no picture.
            Work::Upscaling(..) => {
                Err(EngineError::from_reason("a picture that is upscaled cannot be cut short"))
            }
        }
    }

    fn finish(&mut self, work: Work) -> Result<Vec<NewImage>, EngineError> {
        let pictures = match &work {
            Work::Drawing(generation) => Pipeline::finish(self, generation),
            Work::Upscaling(upscaling, seed) => upscaling.finish(*seed).map(|picture| vec![picture]),
        };
        drop(work);
        // Its copy may be unused now.
        self.trim_copies();
        let images = pictures?.into_iter().map(|picture| NewImage {
            seed: picture.seed,
            // Flagged pictures never leave the process.
            png: (!picture.flagged).then_some(picture.png),
            prompts: picture.prompts,
        });
        Ok(images.collect())
    }

    /// As many jobs as one UNet call takes images: more would only wait for one another.
    fn capacity(&self) -> usize {
        self.batching().images
    }

    fn memory_for(&self, jobs: &[&GenerationInput]) -> u64 {
        Pipeline::memory_for(self, jobs)
    }

    fn prepared_memory(&self) -> u64 {
        Pipeline::prepared_memory(self)
    }

    fn spares(&self) -> Vec<Spare> {
        self.unused_copies().into_iter().map(|(bytes, used_at)| Spare { bytes, used_at }).collect()
    }

    fn drop_spares(&mut self, bytes: u64) {
        self.drop_copies(bytes);
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

#[cfg(test)]
mod tests;
