//! Pages of an endpoint's jobs, newest first.

use rusqlite::{Connection, named_params};

use super::{Store, StoreError, content, rows};
use crate::domain::{EndpointId, Job, JobStatus, Timestamp};

/// A longer input is left out of a list, and so are longer drawn prompts: a page of them could be a gigabyte.
const MAX_INPUT_BYTES: usize = 16 * 1024;

/// One page of jobs.
#[derive(Debug, Clone)]
pub struct JobPage {
    /// An input that is too long for a list is empty here.
    pub jobs: Vec<Job>,
    /// Where the next page begins, if there is one.
    pub next: Option<i64>,
}

/// Which jobs a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobFilter {
    pub status: Option<JobStatus>,
    /// Only jobs after this place: the `next` of the page before.
    pub before: Option<i64>,
    /// How many rows are read. Some may have expired without being swept yet, so a page may be shorter although more
    /// jobs follow.
    pub limit: u32,
}

pub(super) const LIST: &str = "
    select seq, id, endpoint, status, attempt, seed, execution_timeout_ms, ttl_ms, low_priority, created_at,
           started_at, finished_at, expires_at, gpu, error, finish, input
    from jobs indexed by jobs_listed
    where endpoint = :endpoint and status = :status and seq < :before order by seq desc limit :limit";

impl Store {
    pub fn list(
        &self,
        endpoint: &EndpointId,
        filter: JobFilter,
        now: Timestamp,
    ) -> Result<JobPage, StoreError> {
        let wanted = filter.status.as_ref().map_or(&JobStatus::ALL[..], std::slice::from_ref);
        let limit = filter.limit as usize;
        self.read(|db| {
            // One page of each state: each is one search in the index, however many jobs there are.
            let mut found = Vec::new();
            for status in wanted {
                found.extend(newest(db, endpoint, *status, filter)?);
            }
            found.sort_unstable_by_key(|(seq, ..)| std::cmp::Reverse(*seq));
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|(seq, ..)| *seq);
            let jobs = found.into_iter().filter(|(_, _, job)| job.expires_at > now);
            let jobs = jobs.map(|(seq, input, job)| whole(db, seq, input, job)).collect::<Result<_, _>>()?;
            Ok(JobPage { jobs, next })
        })
    }
}

/// The newest jobs of one state, one more than a page holds: place in the queue, id of the input, the row's own columns.
fn newest(
    db: &Connection,
    endpoint: &EndpointId,
    status: JobStatus,
    filter: JobFilter,
) -> Result<Vec<(i64, i64, Job)>, StoreError> {
    let mut statement = db.prepare_cached(LIST)?;
    let rows = statement.query_map(
        named_params! {
            ":endpoint": endpoint.as_str(), ":status": status.as_str(),
            ":before": filter.before.unwrap_or(i64::MAX), ":limit": i64::from(filter.limit) + 1,
        },
        |row| Ok((row.get("seq")?, row.get("input")?, rows::job(row)?)),
    )?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn whole(db: &Connection, seq: i64, input: i64, job: Job) -> Result<Job, StoreError> {
    let input = match content::size(db, input)? {
        Some(size) if size > MAX_INPUT_BYTES => String::new(),
        _ => content::text(db, input)?,
    };
    let mut job = rows::with_results(db, seq, Job { input, ..job })?;
    for image in &mut job.images {
        image.prompts.take_if(|drawn| drawn.prompt.len() + drawn.negative_prompt.len() > MAX_INPUT_BYTES);
    }
    Ok(job)
}
