//! What the data folder holds, in numbers that cost nothing to read.

use std::fs;

use rusqlite::{Connection, OptionalExtension};

use super::{Store, StoreError};
use crate::domain::Timestamp;
use crate::metrics::Load;

impl Store {
    /// The folder as it is at `now`.
    pub fn load(&self, now: Timestamp) -> Result<Load, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("select endpoint, counted, jobs from tally")?;
            let jobs = statement
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned())))?
                .collect::<Result<_, _>>()?;
            let page = number(db, "page_size")?;
            Ok(Load {
                jobs,
                oldest_queued: oldest_queued_at(db)?.map(|since| now.since(since)),
                database_bytes: page * number(db, "page_count")?,
                free_bytes: page * number(db, "freelist_count")?,
                log_bytes: log_bytes(db),
            })
        })
    }
}

/// The queue has two heads, one of each priority; its jobs lie in the order in which they came.
fn oldest_queued_at(db: &Connection) -> Result<Option<Timestamp>, StoreError> {
    let mut statement = db.prepare_cached(
        "select created_at from jobs where status = 'IN_QUEUE' and low_priority = ?1 order by seq limit 1",
    )?;
    let mut head =
        |low_priority: i64| statement.query_row([low_priority], |row| row.get(0).map(Timestamp)).optional();
    Ok([head(0)?, head(1)?].into_iter().flatten().min())
}

fn number(db: &Connection, pragma: &str) -> Result<u64, StoreError> {
    Ok(db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))?.cast_unsigned())
}

/// Zero where there is none at the moment.
fn log_bytes(db: &Connection) -> u64 {
    db.path().and_then(|path| fs::metadata(format!("{path}-wal")).ok()).map_or(0, |log| log.len())
}
