//! What a job needs besides the engine itself before it can begin, such as a copy of the model with LoRAs.

use std::sync::atomic::AtomicBool;

use super::EngineError;

/// Makes it, on whatever thread. It ends early, with any outcome, if the flag becomes true.
pub type Make<M> = Box<dyn FnOnce(&AtomicBool) -> Result<M, EngineError> + Send>;

/// What a job needs.
pub struct Preparation<P, M> {
    /// Bytes of device memory that it takes, whether it is there or is still to be made.
    pub bytes: u64,
    pub stage: Stage<P, M>,
}

/// How far it is.
pub enum Stage<P, M> {
    Ready(P),
    /// A key for each thing that is made. Jobs that have a key in common need the same thing.
    ToMake {
        keys: Vec<u64>,
        /// Bytes of what is not there yet.
        bytes: u64,
        make: Make<M>,
    },
}

impl<P, M> Preparation<P, M> {
    pub fn ready(prepared: P, bytes: u64) -> Self {
        Self { bytes, stage: Stage::Ready(prepared) }
    }

    /// `bytes` of it are still to be made, and `ready` bytes are there.
    pub fn to_make(keys: Vec<u64>, bytes: u64, ready: u64, make: Make<M>) -> Self {
        Self { bytes: bytes + ready, stage: Stage::ToMake { keys, bytes, make } }
    }

    /// Bytes that are still to be taken.
    pub fn bytes_to_make(&self) -> u64 {
        match self.stage {
            Stage::Ready(_) => 0,
            Stage::ToMake { bytes, .. } => bytes,
        }
    }

    /// The keys of what is still to be made.
    pub fn keys(&self) -> Option<&[u64]> {
        match &self.stage {
            Stage::Ready(_) => None,
            Stage::ToMake { keys, .. } => Some(keys),
        }
    }
}
