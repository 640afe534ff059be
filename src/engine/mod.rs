//! The seam between the workers and whatever draws the pictures.
//!
//! A [`Model`] says where it will run and loads an [`Engine`] there; an engine draws in three calls: begin, step,
//! finish. What takes long before a job can begin is a [`Preparation`], which the worker has made beside its other jobs.
//! [`Residency`] decides which engines may be in a device's memory, and reserves what their jobs need. The worker calls
//! these traits and `app::diffusion_engine` implements them; tests implement them with a script. This room knows devices
//! and sizes. It does not know what a model consists of, and nothing of diffusion, the queue or HTTP.

mod placement;
mod preparation;
mod residency;

use crate::domain::{GenerationInput, NewImage};

pub use placement::Placement;
pub use preparation::{Make, Preparation, Stage};
pub use residency::{BUSY_STAY, Grant, MemorySlot, Residency, Spare};

/// A model that can be loaded onto a device.
pub trait Model {
    type Engine: Engine;

    /// Where the engine will run and how much memory it needs there. Loads nothing.
    fn placement(&self) -> Result<Placement, EngineError>;
    /// Loads the engine on the thread that will use it: an engine need not be `Send`.
    fn load(&self) -> Result<Self::Engine, EngineError>;
}

/// Draws pictures, one denoising step at a time.
///
/// Its memory is an account of three sums, all of them estimates: [`Self::memory_for`] the jobs that it draws, what is
/// [prepared](Self::prepared_memory) for jobs, and what is being made for the next.
pub trait Engine {
    /// One job's pictures in progress.
    type Generation;
    /// What a job was prepared with. It is not given back as long as somebody has it.
    type Prepared;
    /// The same as it comes from another thread.
    type Made: Send + 'static;

    /// Says what must be made before `input` can begin. Checks what can be checked quickly.
    fn prepare(&mut self, input: &GenerationInput) -> Result<PreparationOf<Self>, EngineError>;
    /// Takes what another thread has made.
    fn keep(&mut self, made: Self::Made) -> Self::Prepared;
    /// Begins a job: encodes its prompt and draws its noise from `seed`.
    fn begin(
        &mut self,
        prepared: Self::Prepared,
        input: &GenerationInput,
        seed: u64,
    ) -> Result<Self::Generation, EngineError>;
    /// One denoising step of every generation in `batch`. [`EngineError::OutOfMemory`] leaves all of them
    /// unchanged, so that the caller may try again with fewer.
    fn step(&mut self, batch: &mut [&mut Self::Generation]) -> Result<(), EngineError>;
    /// Steps done, and steps in all.
    fn progress(&self, generation: &Self::Generation) -> (u32, u32);
    /// A small PNG file of what the first picture looks like so far; none if the model has no quick way to draw it.
    fn preview(&mut self, generation: &Self::Generation) -> Option<Vec<u8>>;
    /// What the job's client should know about how it was drawn, one sentence each.
    fn warnings(&self, generation: &Self::Generation) -> Vec<String>;
    /// What [`Self::resume`] goes on with from here, in this process or another; none where there is nothing to go on with.
    fn save(&self, generation: &Self::Generation) -> Option<Vec<u8>>;
    /// Brings a job that has just begun to where it was when it was saved. False: what was saved is damaged or of something
    /// else, and the job begins with its first step.
    fn resume(&mut self, generation: &mut Self::Generation, saved: &[u8]) -> Result<bool, EngineError>;
    /// Makes the pictures as they look so far the finished ones, for a job whose client wants no more steps.
    fn cut_short(&mut self, generation: &mut Self::Generation) -> Result<(), EngineError>;
    /// Decodes the finished pictures.
    fn finish(&mut self, generation: Self::Generation) -> Result<Vec<NewImage>, EngineError>;
    /// How many jobs it steps together: 1 on a CPU. Jobs that were waiting for an input picture or a preparation come on
    /// top.
    fn capacity(&self) -> usize;
    /// Bytes of device memory that it holds at most while it draws these jobs together, and with an ordinary job at
    /// least. What is prepared comes on top.
    fn memory_for(&self, jobs: &[&GenerationInput]) -> u64;
    /// Bytes of all that is prepared, used or not.
    fn prepared_memory(&self) -> u64;
    /// What is prepared and not used at the moment.
    fn spares(&self) -> Vec<Spare>;
    /// Drops spares, the least recently used first, until that many bytes are free.
    fn drop_spares(&mut self, bytes: u64);
}

/// What an engine says that a job needs.
pub type PreparationOf<E> = Preparation<<E as Engine>::Prepared, <E as Engine>::Made>;

/// Why an engine could not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device has too little memory. A smaller request may work.
    #[error("{0}")]
    OutOfMemory(String),
    #[error("{0}")]
    Other(String),
}
