//! What clients should know about how their completed jobs were drawn.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{StoreError, content};

/// Stores a job's warnings, if it has any.
pub(super) fn insert(db: &Connection, job: i64, sentences: &[String]) -> Result<(), StoreError> {
    if sentences.is_empty() {
        return Ok(());
    }
    let list = serde_json::to_vec(sentences).map_err(|_| StoreError::Damaged)?;
    let content = content::insert(db, &list)?;
    db.prepare_cached("insert into warnings (job, sentences) values (:job, :sentences)")?
        .execute(named_params! {":job": job, ":sentences": content})?;
    Ok(())
}

pub(super) fn list(db: &Connection, job: i64) -> Result<Vec<String>, StoreError> {
    let content: Option<i64> = db
        .prepare_cached("select sentences from warnings where job = :job")?
        .query_row(named_params! {":job": job}, |row| row.get(0))
        .optional()?;
    let Some(content) = content else { return Ok(Vec::new()) };
    serde_json::from_str(&content::text(db, content)?).map_err(|_| StoreError::Damaged)
}
