//! Copies the write-ahead log into the database, on a thread and a connection of its own.
//!
//! SQLite would do it in the first commit that finds the log long, and everyone who waits for that commit would wait
//! for megabytes to be copied and synced. Only emptying the log is left to the writer (`retention`), and that is quick
//! once the log has been copied.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use rusqlite::Connection;

use super::{StoreError, open};

/// Commits within this time are copied together.
const GATHER: Duration = Duration::from_millis(50);

pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    db: Mutex<Connection>,
    /// There is something new in the log.
    due: AtomicBool,
    stopping: AtomicBool,
}

/// Tells the checkpointer that something was committed.
pub(super) struct Nudge {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Checkpointer {
    pub fn start(path: &Path) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            db: Mutex::new(open::second_writer(path)?),
            due: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let work = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("checkpointer".to_owned())
            .spawn(move || work.run())
            .map_err(|_| StoreError::Internal)?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    pub fn nudge(&self) -> Option<Nudge> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let thread = thread.as_ref()?.thread().clone();
        Some(Nudge { shared: Arc::clone(&self.shared), thread })
    }

    /// Copies what is in the log by now, and nothing more until the guard is dropped, so that the log can be emptied.
    pub fn copy_and_hold(&self) -> MutexGuard<'_, Connection> {
        self.shared.copy_log()
    }

    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Nudge {
    pub fn committed(&self) {
        if !self.shared.due.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }
}

impl Shared {
    fn run(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            if self.due.load(Ordering::SeqCst) {
                thread::park_timeout(GATHER);
                self.due.store(false, Ordering::SeqCst);
                drop(self.copy_log());
            } else {
                thread::park();
            }
        }
    }

    fn copy_log(&self) -> MutexGuard<'_, Connection> {
        let db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        // Passive: it waits for nobody, and nobody waits for it. The next run copies what this one could not, or what a
        // full disk refused.
        if let Err(error) = db.query_row("pragma wal_checkpoint(passive)", [], |_| Ok(())) {
            tracing::debug!(%error, "the log could not be copied into the database");
        }
        db
    }
}
