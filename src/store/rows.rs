//! Jobs read back as values of the domain.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params};

use super::{Store, StoreError, content, images, warnings};
use crate::domain::{EndpointId, Job, JobId, JobOutline, JobStatus, Policy, Timestamp};

const COLUMNS: &str = "seq, id, endpoint, status, attempt, seed, execution_timeout_ms, ttl_ms, low_priority,
    created_at, started_at, finished_at, expires_at, gpu, error, finish, input";

impl Store {
    /// An endpoint's job with its input and the list of its pictures.
    pub fn find(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        now: Timestamp,
    ) -> Result<Option<Arc<Job>>, StoreError> {
        let look = self.recent.look();
        let Some(job) = self.read(|db| find(db, endpoint, id, now))? else { return Ok(None) };
        let job = Arc::new(job);
        self.recent.keep(&look, &job);
        Ok(Some(job))
    }

    /// The same job if it is in memory. Does not block.
    pub fn recent(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Option<Arc<Job>> {
        self.recent.find(endpoint, id, now)
    }

    /// The same job without its input, which may be large.
    pub fn outline(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        now: Timestamp,
    ) -> Result<Option<JobOutline>, StoreError> {
        self.read(|db| outline(db, endpoint, id, now))
    }
}

pub(super) fn find(
    db: &Connection,
    endpoint: &EndpointId,
    id: &JobId,
    now: Timestamp,
) -> Result<Option<Job>, StoreError> {
    let found = db
        .prepare_cached(&format!(
            "select {COLUMNS} from jobs where id = :id and endpoint = :endpoint and expires_at > :now"
        ))?
        .query_row(named_params! {":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0}, job_row)
        .optional()?;
    found.map(|row| whole(db, row)).transpose()
}

/// A job's place in the queue and its state, if it has not expired.
pub(super) fn status(
    db: &Connection,
    endpoint: &EndpointId,
    id: &JobId,
    now: Timestamp,
) -> Result<Option<(i64, JobStatus)>, StoreError> {
    db.prepare_cached(
        "select seq, status from jobs where id = :id and endpoint = :endpoint and expires_at > :now",
    )?
    .query_row(named_params! {":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0}, |row| {
        Ok((row.get(0)?, job_status(row)?))
    })
    .optional()
    .map_err(StoreError::from)
}

/// The job in this row, even if it has expired.
pub(super) fn at(db: &Connection, seq: i64) -> Result<Job, StoreError> {
    let row = db
        .prepare_cached(&format!("select {COLUMNS} from jobs where seq = :seq"))?
        .query_row(named_params! {":seq": seq}, job_row)?;
    whole(db, row)
}

/// The job's place in the queue, the id of its input, and the row's own columns.
type JobRow = (i64, i64, Job);

fn job_row(row: &Row) -> rusqlite::Result<JobRow> {
    Ok((row.get("seq")?, row.get("input")?, job(row)?))
}

fn whole(db: &Connection, (seq, content, job): JobRow) -> Result<Job, StoreError> {
    with_results(db, seq, Job { input: content::text(db, content)?, ..job })
}

/// The job with its pictures and warnings, if it is completed.
pub(super) fn with_results(db: &Connection, seq: i64, job: Job) -> Result<Job, StoreError> {
    if job.status != JobStatus::Completed {
        return Ok(job);
    }
    Ok(Job { images: images::list(db, seq)?, warnings: warnings::list(db, seq)?, ..job })
}

pub(super) fn outline(
    db: &Connection,
    endpoint: &EndpointId,
    id: &JobId,
    now: Timestamp,
) -> Result<Option<JobOutline>, StoreError> {
    let found = db
        .prepare_cached(
            "select seq, status, attempt, expires_at, error
             from jobs where id = :id and endpoint = :endpoint and expires_at > :now",
        )?
        .query_row(named_params! {":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0}, |row| {
            let outline = JobOutline {
                id: id.clone(),
                endpoint: endpoint.clone(),
                status: job_status(row)?,
                attempt: row.get("attempt")?,
                expires_at: Timestamp(row.get("expires_at")?),
                error: row.get("error")?,
                images: Vec::new(),
                warnings: Vec::new(),
            };
            Ok((row.get("seq")?, outline))
        })
        .optional()?;
    let Some((seq, outline)) = found else { return Ok(None) };
    if outline.status != JobStatus::Completed {
        return Ok(Some(outline));
    }
    let (images, warnings) = (images::list(db, seq)?, warnings::list(db, seq)?);
    Ok(Some(JobOutline { images, warnings, ..outline }))
}

/// The row's own columns. The input and the pictures are in other tables.
pub(super) fn job(row: &Row) -> rusqlite::Result<Job> {
    Ok(Job {
        id: id(row, "id")?,
        endpoint: EndpointId::new(row.get::<_, String>("endpoint")?),
        status: job_status(row)?,
        attempt: row.get("attempt")?,
        input: String::new(),
        seed: row.get::<_, i64>("seed")?.cast_unsigned(),
        policy: policy(row)?,
        created_at: Timestamp(row.get("created_at")?),
        started_at: row.get::<_, Option<i64>>("started_at")?.map(Timestamp),
        finished_at: row.get::<_, Option<i64>>("finished_at")?.map(Timestamp),
        expires_at: Timestamp(row.get("expires_at")?),
        error: row.get("error")?,
        gpu: row.get("gpu")?,
        finish: row.get("finish")?,
        images: Vec::new(),
        warnings: Vec::new(),
    })
}

pub(super) fn policy(row: &Row) -> rusqlite::Result<Policy> {
    Ok(Policy {
        execution_timeout: Duration::from_millis(row.get::<_, i64>("execution_timeout_ms")?.cast_unsigned()),
        ttl: Duration::from_millis(row.get::<_, i64>("ttl_ms")?.cast_unsigned()),
        low_priority: row.get("low_priority")?,
    })
}

pub(super) fn id(row: &Row, column: &str) -> rusqlite::Result<JobId> {
    let text: String = row.get(column)?;
    JobId::parse(&text).ok_or_else(corrupt)
}

pub(super) fn job_status(row: &Row) -> rusqlite::Result<JobStatus> {
    JobStatus::parse(row.get_ref("status")?.as_str()?).ok_or_else(corrupt)
}

/// The error for a value that this program never writes.
fn corrupt() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None)
}
