//! Submitting: a job enters its endpoint's queue as `IN_QUEUE`.

use std::time::Duration;

use rusqlite::{Connection, named_params};

use super::idempotency::{self, Earlier};
use super::{Store, StoreError, Write, bucket_keys, content, disk_space, outbox, queued_bytes, traces};
use crate::domain::{JobId, JobStatus, NewJob, Timestamp};

/// A job on its way into the queue.
#[derive(Debug)]
pub struct NewRow {
    pub id: JobId,
    pub job: NewJob,
    pub retention: Duration,
    pub now: Timestamp,
}

/// How much may be queued at one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimit {
    pub jobs: u64,
    /// Of the jobs' inputs, as they lie on the disk.
    pub bytes: u64,
}

/// What became of a submitted job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    Queued,
    /// As many jobs are queued as may be.
    Full,
    /// With this job, the inputs of the queued jobs would take more bytes than they may.
    TooLarge,
    /// The same request was made before. This is its job.
    Known(JobId, JobStatus),
    /// Another request was made with the same key.
    KeyReused,
}

impl Store {
    /// Refuses if the disk has too little free space for another job.
    pub fn has_room(&self) -> Result<(), StoreError> {
        self.read(disk_space::check)
    }

    /// Appends a job to its endpoint's queue, unless that is full or the same request was made before.
    pub fn insert(&self, row: NewRow, limit: QueueLimit) -> Write<'_, Inserted> {
        self.writer.grouped(move |db| {
            disk_space::check(db)?;
            insert(db, &row, limit)
        })
    }
}

fn insert(db: &Connection, row: &NewRow, limit: QueueLimit) -> Result<Inserted, StoreError> {
    if let Some(once) = &row.job.once {
        match idempotency::find(db, once, row.now)? {
            None => {}
            Some(Earlier::Same(id, status)) => return Ok(Inserted::Known(id, status)),
            Some(Earlier::Other) => return Ok(Inserted::KeyReused),
        }
    }
    let queued: i64 = db
        .prepare_cached(
            "select coalesce(sum(jobs), 0) from tally where endpoint = :endpoint and counted = 'IN_QUEUE'",
        )?
        .query_row(named_params! {":endpoint": row.job.endpoint.as_str()}, |row| row.get(0))?;
    if queued.cast_unsigned() >= limit.jobs {
        return Ok(Inserted::Full);
    }
    let bytes = queued_bytes::of(db, row.job.endpoint.as_str())?;
    if bytes.saturating_add(content::stored_size(row.job.input.len())) > limit.bytes {
        return Ok(Inserted::TooLarge);
    }
    let NewRow { id, job, retention, now } = row;
    let input = content::insert(db, job.input.as_bytes())?;
    let seq = db.prepare_cached(
        "insert into jobs (id, endpoint, status, low_priority, execution_timeout_ms, ttl_ms, retention_ms,
                           seed, created_at, finish, input)
         values (:id, :endpoint, 'IN_QUEUE', :low_priority, :execution_timeout_ms, :ttl_ms, :retention_ms,
                 :seed, :now, :finish, :input)",
    )?
    .insert(named_params! {
        ":id": id.as_str(),
        ":endpoint": job.endpoint.as_str(),
        ":low_priority": job.policy.low_priority,
        ":execution_timeout_ms": ms(job.policy.execution_timeout),
        ":ttl_ms": ms(job.policy.ttl),
        ":retention_ms": ms(*retention),
        ":seed": job.seed.cast_signed(),
        ":now": now.0,
        ":finish": job.finish,
        ":input": input,
    })?;
    if let Some(once) = &job.once {
        idempotency::insert(db, once, seq)?;
    }
    if let Some(config) = &job.s3_config {
        bucket_keys::insert(db, seq, config)?;
    }
    if let Some(parent) = job.trace {
        traces::insert(db, seq, parent)?;
    }
    if let Some(webhook) = &job.webhook {
        outbox::subscribe(db, seq, webhook)?;
    }
    Ok(Inserted::Queued)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
