//! How many jobs are in each state, without counting rows: triggers keep the numbers.

use rusqlite::named_params;

use super::{Store, StoreError};
use crate::domain::{EndpointId, JobCounts};

impl Store {
    /// An endpoint's jobs by state. Jobs that timed out count as failed.
    pub fn counts(&self, endpoint: &EndpointId) -> Result<JobCounts, StoreError> {
        self.read(|db| {
            let mut counts = JobCounts::default();
            let mut statement =
                db.prepare_cached("select counted, jobs from tally where endpoint = :endpoint")?;
            let mut rows = statement.query(named_params! {":endpoint": endpoint.as_str()})?;
            while let Some(row) = rows.next()? {
                let jobs = row.get::<_, i64>(1)?.cast_unsigned();
                match row.get_ref(0)?.as_str().unwrap_or_default() {
                    "IN_QUEUE" => counts.in_queue += jobs,
                    "IN_PROGRESS" => counts.in_progress += jobs,
                    "COMPLETED" => counts.completed += jobs,
                    "FAILED" | "TIMED_OUT" => counts.failed += jobs,
                    "RETRIED" => counts.retried += jobs,
                    _ => {}
                }
            }
            Ok(counts)
        })
    }
}
