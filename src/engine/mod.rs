//! The seam between the workers and whatever draws the pictures.
//!
//! A [`Model`] says where it will run and loads an [`Engine`] there; an engine draws in three calls: begin, step,
//! finish. [`Residency`] decides which engines may be in a device's memory. The worker calls these traits and
//! `app::diffusion_engine` implements them; tests implement them with a script. This room knows devices and
//! sizes. It does not know what a model consists of, and nothing of diffusion, the queue or HTTP.

mod placement;
mod residency;

use crate::domain::{GenerationInput, NewImage};

pub use placement::Placement;
pub use residency::{BUSY_STAY, Grant, MemorySlot, Residency};

/// A model that can be loaded onto a device.
pub trait Model {
    type Engine: Engine;

    /// Where the engine will run and how much memory it needs there. Loads nothing.
    fn placement(&self) -> Result<Placement, EngineError>;
    /// Loads the engine on the thread that will use it: an engine need not be `Send`.
    fn load(&self) -> Result<Self::Engine, EngineError>;
}

/// Draws pictures, one denoising step at a time.
pub trait Engine {
    /// One job's pictures in progress.
    type Generation;

    /// Prepares a job: encodes its prompt and draws its noise from `seed`.
    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Self::Generation, EngineError>;
    /// One denoising step of every generation in `batch`. [`EngineError::OutOfMemory`] leaves all of them
    /// unchanged, so that the caller may try again with fewer.
    fn step(&mut self, batch: &mut [&mut Self::Generation]) -> Result<(), EngineError>;
    /// Steps done, and steps in all.
    fn progress(&self, generation: &Self::Generation) -> (u32, u32);
    /// A small PNG file of what the first picture looks like so far; none if the model has no quick way to draw it.
    fn preview(&mut self, generation: &Self::Generation) -> Option<Vec<u8>>;
    /// Decodes the finished pictures.
    fn finish(&mut self, generation: Self::Generation) -> Result<Vec<NewImage>, EngineError>;
    /// How many jobs it steps together: 1 on a CPU. Jobs that were waiting for an input picture come on top.
    fn capacity(&self) -> usize;
    /// Bytes of device memory that it holds: its weights, and what an ordinary job needs.
    fn memory(&self) -> u64;
    /// Bytes of device memory that it would hold at most while it draws `input`.
    fn memory_for(&self, input: &GenerationInput) -> u64;
}

/// Why an engine could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device has too little memory. A smaller request may work.
    #[error("{0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Other(String),
}
