//! How much room the disk must have before a job is taken in.

use std::path::Path;

use super::StoreError;

/// Left for the jobs that were taken in already: their pictures and their end, and also their deletion,
/// for which the log grows before the database shrinks. Without it, a disk that our own jobs filled
/// could not be emptied again by forgetting them.
const RESERVE: u64 = 64 << 20;

/// Refuses what needs more room while the disk under `dir` is short of it.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    match fs4::available_space(dir) {
        Ok(free) if free < RESERVE => Err(StoreError::Short { reserve: RESERVE }),
        // Where the system does not say, the disk will.
        Ok(_) | Err(_) => Ok(()),
    }
}
