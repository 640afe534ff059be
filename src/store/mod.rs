//! The data folder: the only SQL of this crate, and the only place that knows SQLite.
//!
//! Values of [`crate::domain`] go in and come out. Writes go through one thread that commits them in
//! groups ([`writer`]), reads through a pool of read-only connections; neither knows who asks. What is
//! expired is treated as absent by every read, whether or not it has been swept. [`content`] and
//! [`retention`] see to it that forgotten means gone from the files.

mod buckets;
mod checkpointer;
mod content;
mod error;
mod idempotency;
mod images;
mod jobs;
mod latest_time;
mod list;
mod load;
mod open;
mod outbox;
mod retention;
mod room;
mod rows;
mod schema;
mod tally;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;

pub use error::StoreError;
pub use jobs::{Claim, End, Inserted, NewRow, NoRetry, Requeued};
pub use list::{JobFilter, JobPage};
pub use outbox::{Describe, Message};
pub use retention::Forgotten;
pub use schema::{FolderState, is_in_use};
pub use writer::Write;

/// One open data folder. No other process has it open as long as this lives.
pub struct Store {
    writer: writer::Writer,
    checkpointer: checkpointer::Checkpointer,
    readers: Pool<SqliteConnectionManager>,
    dir: Arc<Path>,
    /// Something was deleted whose bytes may still be in the log file.
    traces: Arc<AtomicBool>,
    /// What webhooks are told.
    describe: Describe,
    // Last, so that it is released last.
    _lock: File,
}

impl Store {
    /// Opens the folder, made if absent, and brings its database up to date. Blocks.
    pub fn open(dir: &Path, describe: Describe) -> Result<Self, StoreError> {
        let lock = open::lock(dir)?;
        let path = dir.join(open::DATABASE);
        let connection = open::connect(&path)?;
        let readers = open::readers(&path)?;
        let checkpointer = checkpointer::Checkpointer::start(&path)?;
        let writer = writer::Writer::start(connection, checkpointer.nudge())?;
        let traces = Arc::new(AtomicBool::new(true));
        Ok(Self { writer, checkpointer, readers, dir: dir.into(), traces, describe, _lock: lock })
    }

    /// Finishes the writes that were sent, folds the log into the database and refuses further ones.
    pub fn close(&self) {
        self.checkpointer.stop();
        self.writer.stop();
    }

    /// Runs `query` on a connection of the pool, in one snapshot.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // All connections stay in use for the pool's whole patience, or a new one cannot be opened.
        let db = self.readers.get().map_err(|error| {
            tracing::warn!(%error, "no connection to read the job database with");
            StoreError::Locked
        })?;
        let snapshot = db.unchecked_transaction()?;
        let found = query(&snapshot)?;
        snapshot.finish()?;
        Ok(found)
    }

    /// Runs statements on the write connection, for tests that make trouble.
    #[cfg(test)]
    pub(crate) fn provoke(&self, statements: &'static str) {
        self.writer.alone(move |db| Ok(db.execute_batch(statements)?)).wait().unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}
