//! Putting jobs back into the queue: `FAILED` or `TIMED_OUT` → `IN_QUEUE` by a client's retry, and `IN_PROGRESS` → `IN_QUEUE`
//! after a crash. A job that has crashed the process too often becomes `FAILED` instead.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::named_params;

use super::outbox::{self, Event};
use super::{Store, Write, bucket_keys, images, rows};
use crate::domain::{EndpointId, JobId, JobStatus, Timestamp};

/// Why a job cannot be put back into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRetry {
    /// It has not failed or timed out.
    Status(JobStatus),
    /// The keys of its bucket have been deleted.
    NoBucket,
}

/// How many jobs were found in progress at a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeued {
    pub requeued: u64,
    /// Those that had crashed the process too often.
    pub failed: u64,
}

impl Store {
    /// Puts a job that failed or timed out at the end of the queue and removes its output, or says why it cannot.
    pub fn retry(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        now: Timestamp,
    ) -> Write<'_, Option<Result<(), NoRetry>>> {
        let (endpoint, id) = (endpoint.clone(), id.clone());
        let (recent, changed) = (Arc::clone(&self.recent), id.clone());
        let retry = self.writer.grouped(move |db| {
            let Some((seq, status)) = rows::status(db, &endpoint, &id, now)? else { return Ok(None) };
            if !matches!(status, JobStatus::Failed | JobStatus::TimedOut) {
                return Ok(Some(Err(NoRetry::Status(status))));
            }
            if bucket_keys::is_named(db, seq)? {
                return Ok(Some(Err(NoRetry::NoBucket)));
            }
            images::delete(db, seq)?;
            db.prepare_cached(
                "update jobs set status = 'IN_QUEUE', seq = (select max(seq) + 1 from jobs), crashes = 0,
                    started_at = null, finished_at = null, gpu = null, error = null
                 where seq = :seq",
            )?
            .execute(named_params! {":seq": seq})?;
            Ok(Some(Ok(())))
        });
        retry.after(move |_| recent.drop_job(&changed))
    }

    /// Puts jobs back into the queue that were in progress when the last process ended. A job to which that happened
    /// `max_crashes` times fails with `error`.
    pub fn requeue_orphans(&self, max_crashes: u32, error: String, now: Timestamp) -> Write<'_, Requeued> {
        let (describe, traces, recent) =
            (Arc::clone(&self.describe), Arc::clone(&self.traces), Arc::clone(&self.recent));
        let requeue = self.writer.grouped(move |db| {
            let failed: Vec<i64> = db
                .prepare_cached(
                    "update jobs set crashes = crashes + 1, status = 'FAILED', finished_at = :now, error = :error
                     where status = 'IN_PROGRESS' and crashes + 1 >= :max
                     returning seq",
                )?
                .query_map(named_params! {":now": now.0, ":error": error, ":max": max_crashes}, |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            // Where they were saved must leave the log, too.
            traces.fetch_or(!failed.is_empty(), Ordering::SeqCst);
            for seq in &failed {
                outbox::announce(db, *seq, Event::End, now, &describe)?;
            }
            let requeued = db
                .prepare_cached(
                    "update jobs set crashes = crashes + 1, status = 'IN_QUEUE', started_at = null, gpu = null
                     where status = 'IN_PROGRESS'",
                )?
                .execute([])?;
            Ok(Requeued { requeued: requeued as u64, failed: failed.len() as u64 })
        });
        requeue.after(move |_| recent.drop_if(|job| job.status == JobStatus::InProgress))
    }
}
