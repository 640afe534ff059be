//! Finds the job of a request that is repeated.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{StoreError, rows};
use crate::domain::{Idempotency, JobId, JobStatus, Timestamp};

/// The earlier request with the same key.
pub(super) enum Earlier {
    /// It was the same request, and made this job.
    Same(JobId, JobStatus),
    /// It was another request.
    Other,
}

/// The earlier request with this key, unless its job has expired.
pub(super) fn find(
    db: &Connection,
    once: &Idempotency,
    now: Timestamp,
) -> Result<Option<Earlier>, StoreError> {
    db.prepare_cached(
        "select jobs.id, jobs.status, request from idempotency_keys join jobs on jobs.seq = idempotency_keys.job
         where key = :key and expires_at > :now",
    )?
    .query_row(named_params! {":key": once.key, ":now": now.0}, |row| {
        let same = row.get_ref("request")?.as_blob()? == once.request;
        Ok(if same { Earlier::Same(rows::id(row, "id")?, rows::job_status(row)?) } else { Earlier::Other })
    })
    .optional()
    .map_err(StoreError::from)
}

/// Notes that this request made `job`. An expired job that is not swept yet loses the key to it.
pub(super) fn insert(db: &Connection, once: &Idempotency, job: i64) -> Result<(), StoreError> {
    db.prepare_cached(
        "insert or replace into idempotency_keys (key, request, job) values (:key, :request, :job)",
    )?
    .execute(named_params! {":key": once.key, ":request": once.request, ":job": job})?;
    Ok(())
}
