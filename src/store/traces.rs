//! Which trace a job belongs to.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::StoreError;
use crate::domain::{JobId, TraceParent};

pub(super) fn insert(db: &Connection, seq: i64, parent: TraceParent) -> Result<(), StoreError> {
    db.prepare_cached("insert into traces (job, parent) values (:job, :parent)")?
        .execute(named_params! {":job": seq, ":parent": parent.to_string()})?;
    Ok(())
}

pub(super) fn find(db: &Connection, seq: i64) -> Result<Option<TraceParent>, StoreError> {
    let parent: Option<String> = db
        .prepare_cached("select parent from traces where job = :job")?
        .query_row(named_params! {":job": seq}, |row| row.get(0))
        .optional()?;
    Ok(parent.and_then(|parent| TraceParent::parse(&parent)))
}

pub(super) fn of_job(db: &Connection, id: &JobId) -> Result<Option<TraceParent>, StoreError> {
    let parent: Option<String> = db
        .prepare_cached("select parent from traces join jobs on seq = job where id = :id")?
        .query_row(named_params! {":id": id.as_str()}, |row| row.get(0))
        .optional()?;
    Ok(parent.and_then(|parent| TraceParent::parse(&parent)))
}
