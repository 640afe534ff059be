//! The numbers of each endpoint's queue as of the last commit, in memory: whoever asks gets them without a query.
//!
//! Triggers keep the numbers in the database. The writer reads them at the end of each transaction, and shows them once it is
//! committed and before it answers anybody.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::Connection;

use super::{Store, StoreError, content, load, queued_bytes};
use crate::domain::{EndpointId, JobCounts, Timestamp};

use super::QueueLimit;

/// The numbers of one endpoint's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueNumbers {
    /// Jobs by state. Jobs that timed out count as failed.
    pub jobs: JobCounts,
    /// Of the inputs of queued jobs, as they lie on the disk.
    pub queued_bytes: u64,
    /// When the queued job was submitted that waits longest.
    pub oldest_queued: Option<Timestamp>,
}

/// The numbers of all endpoints that have had jobs.
type Tally = HashMap<String, QueueNumbers>;

/// Shows the latest numbers, or why there are none.
pub(super) struct Board(RwLock<Result<Arc<Tally>, StoreError>>);

impl Store {
    /// The numbers of an endpoint's queue.
    pub fn numbers(&self, endpoint: &EndpointId) -> Result<QueueNumbers, StoreError> {
        let shown = self.board.0.read().unwrap_or_else(PoisonError::into_inner);
        let numbers = shown.as_ref().map_err(Clone::clone)?.get(endpoint.as_str());
        Ok(numbers.cloned().unwrap_or_default())
    }
}

impl QueueNumbers {
    /// Whether the queue has room for a job of the smallest size.
    pub fn has_room(&self, limit: QueueLimit) -> bool {
        let bytes = self.queued_bytes.saturating_add(content::stored_size(0));
        self.jobs.in_queue < limit.jobs && bytes <= limit.bytes
    }
}

impl Board {
    /// Shows the numbers of a database whose queued bytes are watched.
    pub fn of(db: &Connection) -> Self {
        Self(RwLock::new(read(db)))
    }

    pub fn show(&self, numbers: Result<Arc<Tally>, StoreError>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = numbers;
    }
}

/// The numbers as this connection sees them, which writes jobs.
pub(super) fn read(db: &Connection) -> Result<Arc<Tally>, StoreError> {
    let mut tally = Tally::new();
    let mut statement = db.prepare_cached("select endpoint, counted, jobs from tally")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let endpoint = row.get_ref(0)?.as_str().unwrap_or_default();
        if !tally.contains_key(endpoint) {
            tally.insert(endpoint.to_owned(), QueueNumbers::default());
        }
        let Some(QueueNumbers { jobs: counts, .. }) = tally.get_mut(endpoint) else { continue };
        let jobs = row.get::<_, i64>(2)?.cast_unsigned();
        match row.get_ref(1)?.as_str().unwrap_or_default() {
            "IN_QUEUE" => counts.in_queue += jobs,
            "IN_PROGRESS" => counts.in_progress += jobs,
            "COMPLETED" => counts.completed += jobs,
            "FAILED" | "TIMED_OUT" => counts.failed += jobs,
            "RETRIED" => counts.retried += jobs,
            _ => {}
        }
    }
    for (endpoint, numbers) in &mut tally {
        if numbers.jobs.in_queue > 0 {
            numbers.queued_bytes = queued_bytes::of(db, endpoint)?;
            numbers.oldest_queued = load::oldest_queued_at(db, endpoint)?;
        }
    }
    Ok(Arc::new(tally))
}
