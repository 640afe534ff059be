//! What the worker asks of something that draws.

use std::fmt::Display;

use crate::domain::{GenerationInput, NewImage};

/// Something that draws, a step at a time.
pub trait Engine {
    /// One request in flight.
    type Generation;
    type Error: Display;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Self::Generation, Self::Error>;
    /// One denoising step of each.
    fn step(&mut self, batch: &mut [&mut Self::Generation]) -> Result<(), Self::Error>;
    /// Steps done, and steps in all.
    fn progress(&self, generation: &Self::Generation) -> (u32, u32);
    /// How the first picture looks so far, as a small PNG file; none where the model has no quick way to tell.
    fn preview(&mut self, generation: &Self::Generation) -> Option<Vec<u8>>;
    fn finish(&mut self, generation: Self::Generation) -> Result<Vec<NewImage>, Self::Error>;
    /// How many jobs it is given at once: 1 on a CPU. Those whose pictures were fetched first come on top.
    fn capacity(&self) -> usize;
    /// What the status body calls `gpu`.
    fn device(&self) -> String;
}
