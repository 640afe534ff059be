//! Deletes expired rows, gives their space back, and clears their traces from the log.
//!
//! All of it happens in short steps, so that other writes come between them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, named_params};

use super::open::PATIENCE;
use super::{Store, StoreError, Write};
use crate::domain::{EndpointId, JobId, JobStatus, Timestamp};

/// How long one step may occupy the writer.
const STEP: Duration = Duration::from_millis(4);
/// How many pages are given back between two looks at the clock.
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
    /// Whether there is more to do.
    pub more: bool,
}

impl Store {
    /// Lets a job that has ended expire now. False: it has not ended, or is gone already.
    pub fn expire(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Write<'_, bool> {
        let (endpoint, id) = (endpoint.clone(), id.clone());
        let (recent, changed) = (Arc::clone(&self.recent), id.clone());
        let expire = self.writer.grouped(move |db| {
            let expired = db
                .prepare_cached(
                    "update jobs set retention_ms = 0
                     where id = :id and endpoint = :endpoint and finished_at <= :now",
                )?
                .execute(named_params! {":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0})?;
            Ok(expired > 0)
        });
        expire.after(move |_| recent.drop_job(&changed))
    }

    /// Deletes jobs that have expired, as many as fit a step.
    pub fn forget_expired(&self, now: Timestamp) -> Write<'_, Forgotten> {
        let (traces, recent) = (Arc::clone(&self.traces), Arc::clone(&self.recent));
        let forget = self.writer.grouped(move |db| {
            in_step(|| {
                let expired: Option<i64> = db
                    .prepare_cached(EXPIRED)?
                    .query_row(named_params! {":now": now.0}, |row| row.get(0))
                    .optional()?;
                let Some(seq) = expired else { return Ok((0, true)) };
                traces.store(true, Ordering::SeqCst);
                Ok((delete_part(db, seq)?, false))
            })
        });
        forget.after(move |_| recent.drop_if(|job| job.expires_at <= now))
    }

    /// Deletes this job if it has expired, as much of it as fits a step.
    pub fn forget(&self, id: &JobId, now: Timestamp) -> Write<'_, Forgotten> {
        let (id, traces) = (id.clone(), Arc::clone(&self.traces));
        let (recent, changed) = (Arc::clone(&self.recent), id.clone());
        let forget = self.writer.grouped(move |db| {
            in_step(|| {
                let expired: Option<i64> = db
                    .prepare_cached("select seq from jobs where id = :id and expires_at <= :now")?
                    .query_row(named_params! {":id": id.as_str(), ":now": now.0}, |row| row.get(0))
                    .optional()?;
                let Some(seq) = expired else { return Ok((0, true)) };
                traces.store(true, Ordering::SeqCst);
                Ok((delete_part(db, seq)?, false))
            })
        });
        forget.after(move |_| recent.drop_job(&changed))
    }

    /// The newest job at this moment: a purge goes up to it.
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
        let (recent, purged) = (Arc::clone(&self.recent), endpoint.clone());
        let purge = self.writer.grouped(move |db| {
            in_step(|| {
                let deleted = db
                    .prepare_cached(PURGE)?
                    .execute(named_params! {":endpoint": endpoint.as_str(), ":newest": newest})?;
                traces.fetch_or(deleted > 0, Ordering::SeqCst);
                Ok((deleted as u64, deleted == 0))
            })
        });
        purge.after(move |_| {
            recent.drop_if(|job| job.status == JobStatus::InQueue && job.endpoint == purged);
        })
    }

    /// Gives free pages of the file back to the disk, as many as fit a step.
    pub fn give_back(&self) -> Write<'_, Forgotten> {
        self.writer.grouped(|db| {
            in_step(|| {
                let mut statement = db.prepare_cached(&format!("pragma incremental_vacuum({PAGES})"))?;
                // Reading a row frees a page.
                let mut pages = statement.query([])?;
                while pages.next()?.is_some() {}
                let free: i64 = db.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
                Ok((u64::from(PAGES), free == 0))
            })
        })
    }

    /// Whether bytes of deleted rows may still be in the log.
    pub fn leaves_traces(&self) -> bool {
        self.traces.load(Ordering::SeqCst)
    }

    /// Copies the log into the database and empties it. False: readers were using it; try again later.
    pub fn clear_traces(&self) -> Result<bool, StoreError> {
        // Before, not after: the writer sets this again with every deletion, and commits a deletion that it has begun
        // by now before it comes to the checkpoint.
        self.traces.store(false, Ordering::SeqCst);
        // Most of the log is copied here, so that the writer is occupied only briefly.
        let held = self.checkpointer.copy_and_hold();
        let cleared = self.writer.alone(checkpoint).wait();
        drop(held);
        if !matches!(cleared, Ok(true)) {
            self.traces.store(true, Ordering::SeqCst);
        }
        cleared
    }
}

/// Deletes a job's last picture or, once it has none, the job. Returns how many jobs are gone. Each picture may be
/// megabytes, and the clock is checked between them.
fn delete_part(db: &Connection, seq: i64) -> Result<u64, StoreError> {
    let pictures = db
        .prepare_cached(
            "delete from images where job = :job and idx = (select max(idx) from images where job = :job)",
        )?
        .execute(named_params! {":job": seq})?;
    if pictures > 0 {
        return Ok(0);
    }
    let jobs =
        db.prepare_cached("delete from jobs where seq = :job")?.execute(named_params! {":job": seq})?;
    Ok(jobs as u64)
}

pub(super) fn checkpoint(db: &Connection) -> Result<bool, StoreError> {
    db.busy_timeout(READERS_PATIENCE)?;
    let busy = db.query_row("pragma wal_checkpoint(truncate)", [], |row| row.get::<_, bool>(0));
    db.busy_timeout(PATIENCE)?;
    Ok(!busy?)
}

/// Repeats `work`, which returns a count and whether it is finished, until it is finished or the step's time is over.
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
