//! The real engine: the diffusion pipeline as the worker drives it.

use super::Engine;
use crate::diffusion::{DiffusionError, Generation, Pipeline};
use crate::domain::{GenerationInput, NewImage};

impl Engine for Pipeline {
    type Generation = Generation;
    type Error = DiffusionError;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Generation, DiffusionError> {
        Pipeline::begin(self, input, seed)
    }

    fn step(&mut self, batch: &mut [&mut Generation]) -> Result<(), DiffusionError> {
        Pipeline::step(self, batch)
    }

    fn progress(&self, generation: &Generation) -> (u32, u32) {
        generation.progress()
    }

    fn preview(&mut self, generation: &Generation) -> Option<Vec<u8>> {
        Pipeline::preview(self, generation)
    }

    fn finish(&mut self, generation: Generation) -> Result<Vec<NewImage>, DiffusionError> {
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

    fn device(&self) -> String {
        Pipeline::device(self).label()
    }
}
