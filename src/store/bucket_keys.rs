//! The keys of clients' buckets, for as long as a job needs them.
//!
//! A trigger deletes them when the job ends, so that no kind of end can forget to.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{StoreError, content};
use crate::domain::S3Config;

pub(super) fn insert(db: &Connection, job: i64, config: &S3Config) -> Result<(), StoreError> {
    let config = content::insert(db, config.to_json().as_bytes())?;
    db.prepare_cached("insert into buckets (job, config) values (:job, :config)")?
        .execute(named_params! {":job": job, ":config": config})?;
    Ok(())
}

/// Whether the job's pictures go to a bucket. The keys may have been deleted by now.
pub(super) fn is_named(db: &Connection, job: i64) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("select 1 from buckets where job = :job")?.exists(named_params! {":job": job})?)
}

pub(super) fn find(db: &Connection, job: i64) -> Result<Option<S3Config>, StoreError> {
    let config: Option<i64> = db
        .prepare_cached("select config from buckets where job = :job and config is not null")?
        .query_row(named_params! {":job": job}, |row| row.get(0))
        .optional()?;
    let Some(config) = config else { return Ok(None) };
    let value = serde_json::from_str(&content::text(db, config)?).map_err(|_| StoreError::Damaged)?;
    S3Config::parse(&value).map_err(|_| StoreError::Damaged)
}
