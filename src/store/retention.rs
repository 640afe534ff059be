//! Forgetting: rows that are over, the space they took, and their traces in the log.
//!
//! All of it in bounded steps, between which other writes get their turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, named_params};

use super::open::PATIENCE;
use super::{Store, StoreError, Write};
use crate::domain::{EndpointId, Timestamp};

/// How long one step may keep the writer from others.
const STEP: Duration = Duration::from_millis(4);
/// Pages given back between two looks at the clock.
const PAGES: u32 = 64;
/// How long a checkpoint waits for readers.
const READERS_PATIENCE: Duration = Duration::from_millis(20);

pub(super) const EXPIRED: &str = "
    select seq from jobs where expires_at <= :now order by expires_at limit 1";

pub(super) const PURGE: &str = "
    delete from jobs where seq in
    (select seq from jobs indexed by jobs_queued
     where status = 'IN_QUEUE' and endpoint = :endpoint and seq <= :newest order by low_priority, crashes >= 2, seq limit 1)";

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// Jobs deleted, or pages given back.
    pub count: u64,
    /// There is more to do.
    pub more: bool,
}

impl Store {
    /// Deletes jobs that have expired, as many as fit a step.
    pub fn forget_expired(&self, now: Timestamp) -> Write<'_, Forgotten> {
        let traces = Arc::clone(&self.traces);
        self.writer.grouped(move |db| {
            in_step(|| {
                let expired: Option<i64> = db
                    .prepare_cached(EXPIRED)?
                    .query_row(named_params! {":now": now.0}, |row| row.get(0))
                    .optional()?;
                let Some(seq) = expired else { return Ok((0, true)) };
                traces.store(true, Ordering::SeqCst);
                // Its pictures first and singly, for each may be megabytes, and the clock is looked at between.
                let pictures = db
                    .prepare_cached(
                        "delete from images where job = :job and idx = (select max(idx) from images where job = :job)",
                    )?
                    .execute(named_params! {":job": seq})?;
                if pictures > 0 {
                    return Ok((0, false));
                }
                let deleted = db
                    .prepare_cached("delete from jobs where seq = :job")?
                    .execute(named_params! {":job": seq})?;
                Ok((deleted as u64, false))
            })
        })
    }

    /// The newest queued job at this moment, up to which a purge goes.
    pub fn newest(&self) -> Result<i64, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("select coalesce(max(seq), 0) from jobs")?
                .query_row([], |row| row.get(0))?)
        })
    }

    /// Deletes an endpoint's queued jobs up to `newest`, as many as fit a step.
    pub fn purge(&self, endpoint: &EndpointId, newest: i64) -> Write<'_, Forgotten> {
        let (endpoint, traces) = (endpoint.clone(), Arc::clone(&self.traces));
        self.writer.grouped(move |db| {
            in_step(|| {
                let deleted = db
                    .prepare_cached(PURGE)?
                    .execute(named_params! {":endpoint": endpoint.as_str(), ":newest": newest})?;
                traces.fetch_or(deleted > 0, Ordering::SeqCst);
                Ok((deleted as u64, deleted == 0))
            })
        })
    }

    /// Gives free pages of the file back to the disk, as many as fit a step.
    pub fn give_back(&self) -> Write<'_, Forgotten> {
        self.writer.grouped(|db| {
            in_step(|| {
                let mut statement = db.prepare_cached(&format!("pragma incremental_vacuum({PAGES})"))?;
                // Each row that it is asked for frees a page.
                let mut pages = statement.query([])?;
                while pages.next()?.is_some() {}
                let free: i64 = db.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
                Ok((u64::from(PAGES), free == 0))
            })
        })
    }

    /// Whether deleted bytes may still be in the log.
    pub fn leaves_traces(&self) -> bool {
        self.traces.load(Ordering::SeqCst)
    }

    /// Folds the log into the database and empties it, and says whether it could: while readers hold on
    /// to it, it cannot, and is to be asked again.
    pub fn clear_traces(&self) -> Result<bool, StoreError> {
        // Before, not after: the writer sets it again with every deletion, and a deletion that it had
        // begun by now it commits before it comes to the checkpoint.
        self.traces.store(false, Ordering::SeqCst);
        // Most of it here, so that the writer is not kept from others.
        let held = self.checkpointer.fold_and_hold();
        let cleared = self.writer.alone(checkpoint).wait();
        drop(held);
        if !matches!(cleared, Ok(true)) {
            self.traces.store(true, Ordering::SeqCst);
        }
        cleared
    }
}

pub(super) fn checkpoint(db: &Connection) -> Result<bool, StoreError> {
    db.busy_timeout(READERS_PATIENCE)?;
    let busy = db.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, bool>(0));
    db.busy_timeout(PATIENCE)?;
    Ok(!busy?)
}

/// Repeats `work` (count, finished) until it is finished or the step's time is over.
fn in_step(work: impl Fn() -> Result<(u64, bool), StoreError>) -> Result<Forgotten, StoreError> {
    let started = Instant::now();
    let mut count = 0;
    loop {
        let (done, finished) = work()?;
        count += done;
        if finished || started.elapsed() >= STEP {
            return Ok(Forgotten { count, more: !finished });
        }
    }
}
