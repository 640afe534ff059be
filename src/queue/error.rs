//! Why the queue refused or failed.

use crate::store::StoreError;

/// The sentences may be shown to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    #[error("{limit} jobs are queued already, which is the limit; try again later")]
    TooManyQueued { limit: u64 },
    #[error(
        "the inputs of the queued jobs take as many bytes as they may, which are {limit}; try again later"
    )]
    TooManyBytesQueued { limit: u64 },
    #[error("another request was made under the same key")]
    KeyReused,
    /// It may work later without a restart: the disk is full, the database is locked, or the server is shutting down.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        if error.is_passing() || error == StoreError::Closed {
            Self::Unavailable(error.to_string())
        } else {
            Self::Internal(error.to_string())
        }
    }
}
