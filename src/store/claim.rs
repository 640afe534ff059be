//! Claiming: a job in the queue becomes a worker's, `IN_QUEUE` → `IN_PROGRESS`.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, named_params};

use super::outbox::{self, Describe, Event};
use super::{Store, StoreError, Write, bucket_keys, content, rows, traces};
use crate::domain::{EndpointId, JobId, Policy, S3Config, Timestamp, TraceParent, WebhookEvents};

/// A claimed job, as its worker needs it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub id: JobId,
    pub endpoint: EndpointId,
    pub attempt: u32,
    /// How often the process, or the engine at a save, died with it in hand.
    pub crashes: u32,
    pub input: String,
    pub seed: u64,
    pub policy: Policy,
    /// The client's bucket, if the pictures go there.
    pub s3_config: Option<S3Config>,
    pub created_at: Timestamp,
    pub started_at: Timestamp,
    /// When it expires if it does not end before.
    pub expires_at: Timestamp,
    /// Which events its webhook is told besides the end, if it has one.
    pub webhook: Option<WebhookEvents>,
    /// What caused it, if somebody traces that.
    pub trace: Option<TraceParent>,
}

impl Store {
    /// Claims the endpoint's next job for a worker on `gpu`: by priority, then jobs that may have crashed the process
    /// last, then by age.
    pub fn claim(&self, endpoint: &EndpointId, gpu: &str, now: Timestamp) -> Write<'_, Option<Claim>> {
        let (endpoint, gpu, describe) = (endpoint.clone(), gpu.to_owned(), Arc::clone(&self.describe));
        let recent = Arc::clone(&self.recent);
        let claim = self.writer.grouped(move |db| claim(db, &endpoint, &gpu, now, &describe));
        claim.after(move |claim| {
            if let Some(claim) = claim {
                recent.drop_job(&claim.id);
            }
        })
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
}

/// The index is named because the planner, which has seen no data, would otherwise sort all jobs that have not expired
/// by age. A queued job expires at `created_at + ttl_ms`, which this index holds.
pub(super) const CLAIM: &str = "
    update jobs set status = 'IN_PROGRESS', attempt = attempt + 1, started_at = :now, gpu = :gpu
    where seq = (select seq from jobs indexed by jobs_queued
                 where status = 'IN_QUEUE' and endpoint = :endpoint and created_at + ttl_ms > :now
                 order by low_priority, crashes >= 2, seq limit 1)
    returning id, endpoint, attempt, crashes, seed, execution_timeout_ms, ttl_ms, low_priority, created_at, started_at,
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
                crashes: row.get("crashes")?,
                input: String::new(),
                seed: row.get::<_, i64>("seed")?.cast_unsigned(),
                policy: rows::policy(row)?,
                s3_config: None,
                created_at: Timestamp(row.get("created_at")?),
                started_at: Timestamp(row.get("started_at")?),
                expires_at: Timestamp(row.get("expires_at")?),
                webhook: None,
                trace: None,
            };
            Ok((claim, row.get("input")?, row.get("seq")?))
        })
        .optional()?;
    let Some((claim, content, seq)) = claimed else { return Ok(None) };
    let webhook = outbox::subscription(db, seq)?;
    if webhook.is_some_and(|events| events.start) {
        outbox::announce(db, seq, Event::Start, now, describe)?;
    }
    let (input, s3_config) = (content::text(db, content)?, bucket_keys::find(db, seq)?);
    let trace = traces::find(db, seq)?;
    Ok(Some(Claim { input, s3_config, webhook, trace, ..claim }))
}
