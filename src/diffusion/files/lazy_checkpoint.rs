//! Weights that are opened when somebody first asks for them.

use std::sync::{Arc, OnceLock};

use super::{Checkpoint, FileError};

/// Weights that are opened with the model. A VAE that cannot be read fails when it is used, and is tried again then: the
/// other endpoints of a server do not depend on it.
pub struct LazyCheckpoint {
    opened: OnceLock<Checkpoint>,
    open: Box<dyn Fn() -> Result<Checkpoint, FileError> + Send + Sync>,
}

impl LazyCheckpoint {
    pub fn new(open: impl Fn() -> Result<Checkpoint, FileError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { opened: OnceLock::new(), open: Box::new(open) })
    }

    /// A checkpoint that is open already.
    pub fn opened(checkpoint: Checkpoint) -> Arc<Self> {
        let open = || Err(FileError::Unwritable("it is open already".to_owned()));
        Arc::new(Self { opened: OnceLock::from(checkpoint), open: Box::new(open) })
    }

    pub fn get(&self) -> Result<&Checkpoint, FileError> {
        if let Some(checkpoint) = self.opened.get() {
            return Ok(checkpoint);
        }
        let checkpoint = (self.open)()?;
        Ok(self.opened.get_or_init(|| checkpoint))
    }
}
