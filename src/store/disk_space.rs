//! How much free space the disk must have before a job is accepted.

use std::path::Path;

use super::StoreError;

/// Kept free for the jobs that were accepted already: for their pictures and their end, and for their deletion, which
/// makes the log grow before the database shrinks. Without it, a disk that is full of our own jobs could not be freed by
/// deleting them.
const RESERVE: u64 = 64 << 20;

/// Refuses if the disk under `dir` has too little free space.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    match fs4::available_space(dir) {
        Ok(free) if free < RESERVE => Err(StoreError::Short { reserve: RESERVE }),
        // If the system does not know, the write itself will tell.
        Ok(_) | Err(_) => Ok(()),
    }
}
