//! How jobs end: `IN_PROGRESS` → `COMPLETED`, `FAILED` or `TIMED_OUT` by their worker, and any job that has not ended →
//! `CANCELLED` by a client. A worker may also release its job, `IN_PROGRESS` → `IN_QUEUE`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, named_params};

use super::outbox::{self, Describe, Event};
use super::{Store, StoreError, Write, bucket_keys, images, rows, saved_states, warnings};
use crate::domain::{EndpointId, JobId, JobStatus, NewImage, StoredImage, Timestamp};

/// How a worker ends its claim.
#[derive(Debug, Clone)]
pub enum End {
    Completed {
        images: Arc<[NewImage]>,
        /// What the client should know about how they were drawn.
        warnings: Arc<[String]>,
    },
    /// Completed, with its pictures in the client's bucket.
    Stored {
        images: Arc<[StoredImage]>,
        warnings: Arc<[String]>,
    },
    Failed {
        error: String,
    },
    TimedOut {
        error: String,
    },
    /// Put back into the queue at its old place.
    Released,
    /// The same, and counted as if the process had died.
    Crashed,
}

impl End {
    /// The final state that the job gets; none if it goes back into the queue.
    pub fn status(&self) -> Option<JobStatus> {
        match self {
            Self::Completed { .. } | Self::Stored { .. } => Some(JobStatus::Completed),
            Self::Failed { .. } => Some(JobStatus::Failed),
            Self::TimedOut { .. } => Some(JobStatus::TimedOut),
            Self::Released | Self::Crashed => None,
        }
    }
}

impl Store {
    /// Ends a claim. False: the job is no longer in progress under this attempt, and nothing has changed.
    pub fn end(&self, id: &JobId, attempt: u32, end: End, now: Timestamp) -> Write<'_, bool> {
        let (describe, traces, recent) =
            (Arc::clone(&self.describe), Arc::clone(&self.traces), Arc::clone(&self.recent));
        let (id, changed) = (id.clone(), id.clone());
        let end = self.writer.grouped(move |db| {
            // What the end deletes must leave the log, too.
            let was_saved = saved_states::is_saved(db, &id)?;
            let Some(seq) = self::end(db, &id, attempt, &end, now, &describe)? else { return Ok(false) };
            traces.fetch_or(was_saved || bucket_keys::is_named(db, seq)?, Ordering::SeqCst);
            Ok(true)
        });
        end.after(move |_| recent.drop_job(&changed))
    }

    /// Cancels a job, and returns its state afterwards. A job that has ended keeps its state.
    pub fn cancel(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Write<'_, Option<JobStatus>> {
        let (endpoint, id, describe) = (endpoint.clone(), id.clone(), Arc::clone(&self.describe));
        let (traces, recent, changed) = (Arc::clone(&self.traces), Arc::clone(&self.recent), id.clone());
        let cancel = self.writer.grouped(move |db| {
            let Some((seq, status)) = rows::status(db, &endpoint, &id, now)? else { return Ok(None) };
            if status.is_final() {
                return Ok(Some(status));
            }
            let was_saved = saved_states::is_saved(db, &id)?;
            db.prepare_cached("update jobs set status = 'CANCELLED', finished_at = :now where seq = :seq")?
                .execute(named_params! {":now": now.0, ":seq": seq})?;
            traces.fetch_or(was_saved || bucket_keys::is_named(db, seq)?, Ordering::SeqCst);
            outbox::announce(db, seq, Event::End, now, &describe)?;
            Ok(Some(JobStatus::Cancelled))
        });
        cancel.after(move |_| recent.drop_job(&changed))
    }
}

fn end(
    db: &Connection,
    id: &JobId,
    attempt: u32,
    end: &End,
    now: Timestamp,
    describe: &Describe,
) -> Result<Option<i64>, StoreError> {
    let status = end.status().unwrap_or(JobStatus::InQueue);
    let error = match end {
        End::Failed { error } | End::TimedOut { error } => Some(error),
        End::Completed { .. } | End::Stored { .. } | End::Released | End::Crashed => None,
    };
    let seq: Option<i64> = db
        .prepare_cached(
            "update jobs set status = :status, error = :error, crashes = crashes + :crashed,
                gpu = case :status when 'IN_QUEUE' then null else gpu end,
                finished_at = case :status when 'IN_QUEUE' then null else :now end,
                started_at = case :status when 'IN_QUEUE' then null else started_at end
             where id = :id and attempt = :attempt and status = 'IN_PROGRESS'
             returning seq",
        )?
        .query_row(
            named_params! {
                ":status": status.as_str(), ":error": error, ":now": now.0, ":id": id.as_str(), ":attempt": attempt,
                ":crashed": matches!(end, End::Crashed),
            },
            |row| row.get(0),
        )
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    match end {
        End::Completed { images, warnings } => {
            images::insert(db, seq, images)?;
            warnings::insert(db, seq, warnings)?;
        }
        End::Stored { images, warnings } => {
            images::insert_stored(db, seq, images)?;
            warnings::insert(db, seq, warnings)?;
        }
        _ => {}
    }
    if status.is_final() {
        outbox::announce(db, seq, Event::End, now, describe)?;
    }
    Ok(Some(seq))
}
