//! What the worker asks of something that draws, and of what that is made of.

use crate::domain::{GenerationInput, NewImage};
use crate::runtime::Device;

/// What engines are made of: a model for a device.
pub trait Model {
    type Engine: Engine;

    /// Where an engine would be, and what it would take there.
    fn placement(&self) -> Result<Placement, EngineError>;
    /// Makes one, on the thread that is to use it: an engine need not be `Send`.
    fn load(&self) -> Result<Self::Engine, EngineError>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    pub device: Device,
    /// Bytes of the device's memory, as far as can be told before it is loaded.
    pub needs: u64,
    /// What all engines on that device may take together; without, whatever there is.
    pub budget: Option<u64>,
}

/// Something that draws, a step at a time.
pub trait Engine {
    /// One request in flight.
    type Generation;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Self::Generation, EngineError>;
    /// One denoising step of each. Where memory runs out nothing has changed, so that fewer may be tried.
    fn step(&mut self, batch: &mut [&mut Self::Generation]) -> Result<(), EngineError>;
    /// Steps done, and steps in all.
    fn progress(&self, generation: &Self::Generation) -> (u32, u32);
    /// How the first picture looks so far, as a small PNG file; none where the model has no quick way to tell.
    fn preview(&mut self, generation: &Self::Generation) -> Option<Vec<u8>>;
    fn finish(&mut self, generation: Self::Generation) -> Result<Vec<NewImage>, EngineError>;
    /// How many jobs it is given at once: 1 on a CPU. Those whose pictures were fetched first come on top.
    fn capacity(&self) -> usize;
    /// The bytes of its device's memory that it holds: its weights, and what an ordinary job takes.
    fn memory(&self) -> u64;
    /// The bytes that it would hold at most while it draws this.
    fn memory_for(&self, input: &GenerationInput) -> u64;
}

/// Why an engine could not do its part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device's memory did not suffice: less might do.
    #[error("{0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Other(String),
}
