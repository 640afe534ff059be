//! How much free space the disk must have before a job is accepted.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// Kept free for the jobs that were accepted already: for their pictures, their end and the messages about it, and for their
/// deletion, which makes the log grow before the database shrinks. Without it, a disk that is full of our own jobs could
/// not be freed by deleting them.
const RESERVE: u64 = 64 << 20;

/// Refuses if the database's disk has too little free space.
pub(super) fn check(db: &Connection) -> Result<(), StoreError> {
    if is_short(db) { Err(StoreError::Short { reserve: RESERVE }) } else { Ok(()) }
}

/// Whether the reserve is in use.
pub(super) fn is_short(db: &Connection) -> bool {
    // If the system does not know, the write itself will tell.
    db.path()
        .and_then(|path| Path::new(path).parent())
        .is_some_and(|dir| fs4::available_space(dir).is_ok_and(|free| free < RESERVE))
}
