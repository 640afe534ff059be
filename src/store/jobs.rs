//! The jobs' rows: every transition of a job's life is one statement here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params};

use super::idempotency::{self, Earlier};
use super::outbox::{self, Describe, Event};
use super::{Store, StoreError, Write, buckets, content, images, room, rows};
use crate::domain::{
    EndpointId, Job, JobId, JobOutline, JobStatus, NewImage, NewJob, Policy, S3Config, StoredImage,
    Timestamp, WebhookEvents,
};

/// A job on its way into the queue.
#[derive(Debug)]
pub struct NewRow {
    pub id: JobId,
    pub job: NewJob,
    pub retention: Duration,
    pub now: Timestamp,
}

/// What became of a job that was to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inserted {
    Queued,
    /// As many as may be are queued already.
    Full,
    /// The same request was made before, and this is its job.
    Known(JobId, JobStatus),
    /// Another request was made under the same key.
    KeyReused,
}

/// A job that is being worked on, as its worker needs it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: JobId,
    pub endpoint: EndpointId,
    pub attempt: u32,
    pub input: String,
    pub seed: u64,
    pub policy: Policy,
    /// Where the pictures go, if not here.
    pub s3_config: Option<S3Config>,
    pub created_at: Timestamp,
    pub started_at: Timestamp,
    /// When it is forgotten if it does not end before.
    pub expires_at: Timestamp,
    /// What its webhook is told besides the end, if it has one.
    pub webhook: Option<WebhookEvents>,
}

/// What becomes of a claim.
#[derive(Debug, Clone)]
pub enum End {
    Completed {
        images: Arc<[NewImage]>,
    },
    /// Completed, its pictures in the client's bucket.
    Stored {
        images: Arc<[StoredImage]>,
    },
    Failed {
        error: String,
    },
    TimedOut {
        error: String,
    },
    /// Back into the queue, at its old place.
    Released,
}

impl End {
    /// The final state that it brings; none where the job goes on later.
    pub fn status(&self) -> Option<JobStatus> {
        match self {
            Self::Completed { .. } | Self::Stored { .. } => Some(JobStatus::Completed),
            Self::Failed { .. } => Some(JobStatus::Failed),
            Self::TimedOut { .. } => Some(JobStatus::TimedOut),
            Self::Released => None,
        }
    }
}

/// Why a job cannot be put back into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRetry {
    /// It is in no state for it.
    Status(JobStatus),
    /// The keys of its bucket are forgotten.
    NoBucket,
}

/// What was found in progress at a start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requeued {
    pub requeued: u64,
    /// They ended the process too often.
    pub failed: u64,
}

impl Store {
    /// Appends a job to its endpoint's queue unless `limit` jobs are in it already or the same request was
    /// made before.
    pub fn insert(&self, row: NewRow, limit: u64) -> Write<'_, Inserted> {
        let dir = Arc::clone(&self.dir);
        self.writer.grouped(move |db| {
            room::check(&dir)?;
            insert(db, &row, limit)
        })
    }

    /// Takes the endpoint's next job for a worker on `gpu`: priority first, suspects last, then age.
    pub fn claim(&self, endpoint: &EndpointId, gpu: &str, now: Timestamp) -> Write<'_, Option<Claim>> {
        let (endpoint, gpu, describe) = (endpoint.clone(), gpu.to_owned(), Arc::clone(&self.describe));
        self.writer.grouped(move |db| claim(db, &endpoint, &gpu, now, &describe))
    }

    /// Whether [`Self::claim`] would find a job.
    pub fn has_queued(&self, endpoint: &EndpointId, now: Timestamp) -> Result<bool, StoreError> {
        self.read(|db| {
            let exists = db
                .prepare_cached(
                    "select exists (select 1 from jobs indexed by jobs_queued
                                    where status = 'IN_QUEUE' and endpoint = :endpoint and created_at + ttl_ms > :now)",
                )?
                .query_row(named_params! {":endpoint": endpoint.as_str(), ":now": now.0}, |row| row.get(0))?;
            Ok(exists)
        })
    }

    /// Ends a claim, if the job is still in progress under that attempt, and says whether it was.
    pub fn end(&self, id: &JobId, attempt: u32, end: End, now: Timestamp) -> Write<'_, bool> {
        let (id, describe, traces) = (id.clone(), Arc::clone(&self.describe), Arc::clone(&self.traces));
        self.writer.grouped(move |db| {
            let Some(seq) = self::end(db, &id, attempt, &end, now, &describe)? else { return Ok(false) };
            traces.fetch_or(buckets::is_named(db, seq)?, Ordering::SeqCst);
            Ok(true)
        })
    }

    /// Cancels a job that has not ended, and answers its state afterwards.
    pub fn cancel(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Write<'_, Option<JobStatus>> {
        let (endpoint, id, describe) = (endpoint.clone(), id.clone(), Arc::clone(&self.describe));
        let traces = Arc::clone(&self.traces);
        self.writer.grouped(move |db| {
            let Some((seq, status)) = status(db, &endpoint, &id, now)? else { return Ok(None) };
            if status.is_final() {
                return Ok(Some(status));
            }
            db.prepare_cached("update jobs set status = 'CANCELLED', finished_at = :now where seq = :seq")?
                .execute(named_params! {":now": now.0, ":seq": seq})?;
            traces.fetch_or(buckets::is_named(db, seq)?, Ordering::SeqCst);
            outbox::announce(db, seq, Event::End, now, &describe)?;
            Ok(Some(JobStatus::Cancelled))
        })
    }

    /// Puts a job that failed or timed out at the end of the queue, its output removed; otherwise answers
    /// why not.
    pub fn retry(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        now: Timestamp,
    ) -> Write<'_, Option<Result<(), NoRetry>>> {
        let (endpoint, id) = (endpoint.clone(), id.clone());
        self.writer.grouped(move |db| {
            let Some((seq, status)) = status(db, &endpoint, &id, now)? else { return Ok(None) };
            if !matches!(status, JobStatus::Failed | JobStatus::TimedOut) {
                return Ok(Some(Err(NoRetry::Status(status))));
            }
            if buckets::is_named(db, seq)? {
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
        })
    }

    /// Puts what was in progress when the last process died back into the queue; what did so
    /// `max_crashes` times ends as failed with `error`.
    pub fn requeue_orphans(&self, max_crashes: u32, error: String, now: Timestamp) -> Write<'_, Requeued> {
        let describe = Arc::clone(&self.describe);
        self.writer.grouped(move |db| {
            let failed: Vec<i64> = db
                .prepare_cached(
                    "update jobs set crashes = crashes + 1, status = 'FAILED', finished_at = :now, error = :error
                     where status = 'IN_PROGRESS' and crashes + 1 >= :max
                     returning seq",
                )?
                .query_map(named_params! {":now": now.0, ":error": error, ":max": max_crashes}, |row| row.get(0))?
                .collect::<Result<_, _>>()?;
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
        })
    }

    /// One endpoint's job with the list of its pictures.
    pub fn find(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Result<Option<Job>, StoreError> {
        self.read(|db| rows::find(db, endpoint, id, now))
    }

    /// The same without its input, which may be large.
    pub fn outline(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        now: Timestamp,
    ) -> Result<Option<JobOutline>, StoreError> {
        self.read(|db| rows::outline(db, endpoint, id, now))
    }
}

fn insert(db: &Connection, row: &NewRow, limit: u64) -> Result<Inserted, StoreError> {
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
    if queued.cast_unsigned() >= limit {
        return Ok(Inserted::Full);
    }
    let NewRow { id, job, retention, now } = row;
    let input = content::insert(db, job.input.as_bytes())?;
    let seq = db.prepare_cached(
        "insert into jobs (id, endpoint, status, low_priority, execution_timeout_ms, ttl_ms, retention_ms,
                           seed, created_at, input)
         values (:id, :endpoint, 'IN_QUEUE', :low_priority, :execution_timeout_ms, :ttl_ms, :retention_ms,
                 :seed, :now, :input)",
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
        ":input": input,
    })?;
    if let Some(once) = &job.once {
        idempotency::insert(db, once, seq)?;
    }
    if let Some(config) = &job.s3_config {
        buckets::insert(db, seq, config)?;
    }
    if let Some(webhook) = &job.webhook {
        outbox::subscribe(db, seq, webhook)?;
    }
    Ok(Inserted::Queued)
}

/// The index is named because the planner, which has seen no data, would rather sort by age all that
/// has not expired. A queued job expires at `created_at + ttl_ms`, which that index holds.
pub(super) const CLAIM: &str = "
    update jobs set status = 'IN_PROGRESS', attempt = attempt + 1, started_at = :now, gpu = :gpu
    where seq = (select seq from jobs indexed by jobs_queued
                 where status = 'IN_QUEUE' and endpoint = :endpoint and created_at + ttl_ms > :now
                 order by low_priority, crashes >= 2, seq limit 1)
    returning id, endpoint, attempt, seed, execution_timeout_ms, ttl_ms, low_priority, created_at, started_at,
              expires_at, input, seq";

fn claim(
    db: &Connection,
    endpoint: &EndpointId,
    gpu: &str,
    now: Timestamp,
    describe: &Describe,
) -> Result<Option<Claim>, StoreError> {
    let claimed = db
        .prepare_cached(CLAIM)?
        .query_row(named_params! {":endpoint": endpoint.as_str(), ":gpu": gpu, ":now": now.0}, |row| {
            let claim = Claim {
                id: rows::id(row, "id")?,
                endpoint: EndpointId::new(row.get::<_, String>("endpoint")?),
                attempt: row.get("attempt")?,
                input: String::new(),
                seed: row.get::<_, i64>("seed")?.cast_unsigned(),
                policy: rows::policy(row)?,
                s3_config: None,
                created_at: Timestamp(row.get("created_at")?),
                started_at: Timestamp(row.get("started_at")?),
                expires_at: Timestamp(row.get("expires_at")?),
                webhook: None,
            };
            Ok((claim, row.get("input")?, row.get("seq")?))
        })
        .optional()?;
    let Some((claim, content, seq)) = claimed else { return Ok(None) };
    let webhook = outbox::subscription(db, seq)?;
    if webhook.is_some_and(|events| events.start) {
        outbox::announce(db, seq, Event::Start, now, describe)?;
    }
    let (input, s3_config) = (content::text(db, content)?, buckets::find(db, seq)?);
    Ok(Some(Claim { input, s3_config, webhook, ..claim }))
}

fn end(
    db: &Connection,
    id: &JobId,
    attempt: u32,
    end: &End,
    now: Timestamp,
    describe: &Describe,
) -> Result<Option<i64>, StoreError> {
    let (status, error) = match end {
        End::Completed { .. } | End::Stored { .. } => (JobStatus::Completed, None),
        End::Failed { error } => (JobStatus::Failed, Some(error)),
        End::TimedOut { error } => (JobStatus::TimedOut, Some(error)),
        End::Released => (JobStatus::InQueue, None),
    };
    let seq: Option<i64> = db
        .prepare_cached(
            "update jobs set status = :status, error = :error,
                gpu = case :status when 'IN_QUEUE' then null else gpu end,
                finished_at = case :status when 'IN_QUEUE' then null else :now end,
                started_at = case :status when 'IN_QUEUE' then null else started_at end
             where id = :id and attempt = :attempt and status = 'IN_PROGRESS'
             returning seq",
        )?
        .query_row(
            named_params! {
                ":status": status.as_str(), ":error": error, ":now": now.0, ":id": id.as_str(), ":attempt": attempt,
            },
            |row| row.get(0),
        )
        .optional()?;
    let Some(seq) = seq else { return Ok(None) };
    match end {
        End::Completed { images } => images::insert(db, seq, images)?,
        End::Stored { images } => images::insert_stored(db, seq, images)?,
        _ => {}
    }
    if status.is_final() {
        outbox::announce(db, seq, Event::End, now, describe)?;
    }
    Ok(Some(seq))
}

fn status(
    db: &Connection,
    endpoint: &EndpointId,
    id: &JobId,
    now: Timestamp,
) -> Result<Option<(i64, JobStatus)>, StoreError> {
    db.prepare_cached(
        "select seq, status from jobs where id = :id and endpoint = :endpoint and expires_at > :now",
    )?
    .query_row(named_params! {":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0}, |row| {
        Ok((row.get(0)?, rows::job_status(row)?))
    })
    .optional()
    .map_err(StoreError::from)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
