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
    /// Jobs with equal keys need the same.
    ToMake {
        key: u64,
        make: Make<M>,
    },
}

impl<P, M> Preparation<P, M> {
    pub fn ready(prepared: P, bytes: u64) -> Self {
        Self { bytes, stage: Stage::Ready(prepared) }
    }

    pub fn to_make(key: u64, bytes: u64, make: Make<M>) -> Self {
        Self { bytes, stage: Stage::ToMake { key, make } }
    }

    /// Bytes that are still to be taken.
    pub fn bytes_to_make(&self) -> u64 {
        match self.stage {
            Stage::Ready(_) => 0,
            Stage::ToMake { .. } => self.bytes,
        }
    }

    /// What is still to be made.
    pub fn key(&self) -> Option<u64> {
        match self.stage {
            Stage::Ready(_) => None,
            Stage::ToMake { key, .. } => Some(key),
        }
    }
}
