//! The latest time that was seen, in case the machine's clock is set back before the next start.

use rusqlite::{OptionalExtension, named_params};

use super::{Store, StoreError, Write};
use crate::domain::Timestamp;

impl Store {
    /// The latest time that was noted, if there is a job or a message whose time matters.
    pub fn latest_time(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|db| {
            let latest = db
                .prepare_cached(
                    "select ms from latest_time where exists (select 1 from jobs) or exists (select 1 from outbox)",
                )?
                .query_row([], |row| Ok(Timestamp(row.get(0)?)))
                .optional()?;
            Ok(latest)
        })
    }

    /// Notes the time, if there is a job or a message whose time matters.
    pub fn note_time(&self, now: Timestamp) -> Write<'_, ()> {
        self.writer.grouped(move |db| {
            db.prepare_cached(
                "insert or replace into latest_time select 1, :now
                 where exists (select 1 from jobs) or exists (select 1 from outbox)",
            )?
            .execute(named_params! {":now": now.0})?;
            Ok(())
        })
    }
}
