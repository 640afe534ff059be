//! The data folder: the only SQL of this crate, and the only place that knows SQLite.
//!
//! Values of [`crate::domain`] go in and come out. One thread does all writes and commits them in groups ([`writer`]);
//! reads use a pool of read-only connections. What is asked for most, [`recent`] jobs and the [`tally`] of each queue, is in
//! memory. Every read treats an expired job as absent, even before it is swept.
//! [`content`] and [`retention`] make sure that no byte of a deleted job stays in the files.
//!
//! # Every transition of a job
//!
//! Each is part of one transaction that also checks the state that it leaves.
//!
//! | from | to | by | file |
//! |---|---|---|---|
//! | | `IN_QUEUE` | submit | [`submit`] |
//! | `IN_QUEUE` | `IN_PROGRESS` | a worker's claim | [`claim`] |
//! | `IN_PROGRESS` | `COMPLETED`, `FAILED`, `TIMED_OUT` | its worker | [`end`] |
//! | `IN_PROGRESS` | `IN_QUEUE` | its worker, at a shutdown | [`end`] |
//! | `IN_QUEUE`, `IN_PROGRESS` | `CANCELLED` | a client | [`end`] |
//! | `FAILED`, `TIMED_OUT` | `IN_QUEUE` | a client's retry | [`requeue`] |
//! | `IN_PROGRESS` | `IN_QUEUE`, `FAILED` | the next start after a crash | [`requeue`] |

mod backup;
mod bucket_keys;
mod check;
mod checkpointer;
mod claim;
mod content;
mod disk_space;
mod end;
mod error;
mod idempotency;
mod images;
mod latest_time;
mod list;
mod load;
mod look;
mod open;
mod outbox;
mod queued_bytes;
mod recent;
mod requeue;
mod restore;
mod retention;
mod rows;
mod saved_states;
mod schema;
mod submit;
mod tally;
#[cfg(test)]
mod tests;
mod traces;
mod warnings;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;

pub use backup::{BackupError, Secret, back_up};
pub use check::{Findings, check};
pub use claim::Claim;
pub use end::End;
pub use error::StoreError;
pub use list::{JobFilter, JobPage};
pub use outbox::{Describe, Message};
pub use requeue::{NoRetry, Requeued};
pub use restore::Restore;
pub use retention::Forgotten;
pub use schema::{FolderState, is_in_use};
pub use submit::{Inserted, NewRow, QueueLimit};
pub use tally::QueueNumbers;
pub use writer::Write;

/// One open data folder. No other process has it open as long as this lives.
pub struct Store {
    writer: writer::Writer,
    checkpointer: checkpointer::Checkpointer,
    readers: Pool<SqliteConnectionManager>,
    recent: Arc<recent::RecentJobs>,
    board: Arc<tally::Board>,
    /// Something was deleted whose bytes may still be in the log file.
    traces: Arc<AtomicBool>,
    /// Writes the messages to webhooks.
    describe: Describe,
    // The last field, so that it is released last.
    _lock: File,
}

impl Store {
    /// Opens the folder, makes it if it is absent, and brings its database up to date. Blocks.
    pub fn open(dir: &Path, describe: Describe) -> Result<Self, StoreError> {
        let lock = open::lock(dir)?;
        let path = dir.join(open::DATABASE);
        let connection = open::connect(&path)?;
        queued_bytes::watch(&connection)?;
        let readers = open::readers(&path)?;
        let checkpointer = checkpointer::Checkpointer::start(&path)?;
        let board = Arc::new(tally::Board::of(&connection));
        let writer = writer::Writer::start(connection, checkpointer.nudge(), Arc::clone(&board))?;
        let (recent, traces) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        Ok(Self { writer, checkpointer, readers, recent, board, traces, describe, _lock: lock })
    }

    /// Finishes the writes that were sent, and refuses further ones.
    pub fn close(&self) {
        self.checkpointer.stop();
        self.writer.stop();
    }

    /// Runs `query` on a connection of the pool, in one snapshot.
    fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // Fails if all connections are in use for the whole timeout, or if a new one cannot be opened.
        let db = self.readers.get().map_err(|error| {
            tracing::warn!(%error, "no connection to read the job database with");
            StoreError::Locked
        })?;
        let snapshot = db.unchecked_transaction()?;
        let found = query(&snapshot)?;
        snapshot.finish()?;
        Ok(found)
    }

    /// Runs statements on the write connection, so that tests can provoke failures.
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
