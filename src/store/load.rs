//! Numbers about the data folder that are cheap to read.

use std::fs;

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Store, StoreError};
use crate::domain::Timestamp;
use crate::metrics::Load;

impl Store {
    /// The state of the folder at `now`.
    pub fn load(&self, now: Timestamp) -> Result<Load, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("select endpoint, counted, jobs from tally")?;
            let jobs: Vec<(String, String, u64)> = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned())))?
                .collect::<Result<_, _>>()?;
            let mut oldest_queued = Vec::new();
            for (endpoint, ..) in
                jobs.iter().filter(|(_, counted, count)| counted == "IN_QUEUE" && *count > 0)
            {
                if let Some(since) = oldest_queued_at(db, endpoint)? {
                    oldest_queued.push((endpoint.clone(), now.since(since)));
                }
            }
            let page = number(db, "page_size")?;
            Ok(Load {
                jobs,
                oldest_queued,
                database_bytes: page * number(db, "page_count")?,
                free_bytes: page * number(db, "freelist_count")?,
                log_bytes: log_bytes(db),
            })
        })
    }
}

/// An endpoint's queue consists of four queues, by priority and by whether the job may have crashed the process. Each is
/// in the order of submission, so the oldest job is at the head of one of them.
pub(super) fn oldest_queued_at(db: &Connection, endpoint: &str) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = db.prepare_cached(
        "select created_at from jobs
         where status = 'IN_QUEUE' and endpoint = :endpoint and low_priority = :low and (crashes >= 2) = :suspect
         order by seq limit 1",
    )?;
    let mut oldest = None;
    for (low, suspect) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let head = statement
            .query_row(named_params! {":endpoint": endpoint, ":low": low, ":suspect": suspect}, |row| {
                row.get(0).map(Timestamp)
            })
            .optional()?;
        oldest = [oldest, head].into_iter().flatten().min();
    }
    Ok(oldest)
}

fn number(db: &Connection, pragma: &str) -> Result<u64, StoreError> {
    Ok(db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Zero if there is no log at the moment.
fn log_bytes(db: &Connection) -> u64 {
    db.path().and_then(|path| fs::metadata(format!("{path}-wal")).ok()).map_or(0, |log| log.len())
}
