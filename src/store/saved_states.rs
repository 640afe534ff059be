//! Where running jobs were when their workers last saved them.
//!
//! A job has one such state: each save replaces the last. A trigger deletes it when the job ends, so that no kind of end
//! can forget to.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Store, StoreError, Write, content, disk_space};
use crate::domain::JobId;

impl Store {
    /// Saves where a claimed job is. False: it is no longer in progress under this attempt, and nothing has changed. Fails if
    /// the disk has only the space left that jobs need to end.
    pub fn save_state(&self, id: &JobId, attempt: u32, state: Vec<u8>) -> Write<'_, bool> {
        let id = id.clone();
        self.writer.grouped(move |db| {
            let saved = disk_space::check(db).and_then(|()| save(db, &id, attempt, &state));
            if let Err(error) = &saved {
                tracing::warn!(job = %id, attempt, %error, "where the job is could not be saved; it goes on");
            }
            saved
        })
    }

    /// Where a claimed job was saved, by whatever attempt.
    pub fn saved_state(&self, id: &JobId, attempt: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|db| {
            let content: Option<i64> = db
                .prepare_cached(
                    "select state from saved_states join jobs on seq = job
                     where id = :id and attempt = :attempt and status = 'IN_PROGRESS'",
                )?
                .query_row(named_params! {":id": id.as_str(), ":attempt": attempt}, |row| row.get(0))
                .optional()?;
            content.map_or(Ok(None), |content| content::find(db, content))
        })
    }
}

/// Whether a job has saved where it is.
pub(super) fn is_saved(db: &Connection, id: &JobId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("select exists (select 1 from saved_states join jobs on seq = job where id = :id)")?
        .query_row(named_params! {":id": id.as_str()}, |row| row.get(0))?)
}

fn save(db: &Connection, id: &JobId, attempt: u32, state: &[u8]) -> Result<bool, StoreError> {
    let found: Option<(i64, Option<i64>)> = db
        .prepare_cached(
            "select seq, state from jobs left join saved_states on job = seq
             where id = :id and attempt = :attempt and status = 'IN_PROGRESS'",
        )?
        .query_row(named_params! {":id": id.as_str(), ":attempt": attempt}, |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match found {
        None => return Ok(false),
        Some((_, Some(content))) => content::replace(db, content, state)?,
        Some((seq, None)) => {
            let content = content::insert(db, state)?;
            db.prepare_cached("insert into saved_states (job, state) values (:job, :state)")?
                .execute(named_params! {":job": seq, ":state": content})?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::{End, NewRow, QueueLimit};
    use super::*;
    use crate::domain::{EndpointId, JobKind, NewJob, Timestamp};

    const NOW: Timestamp = Timestamp(1_000_000);

    struct Folder {
        store: Store,
        dir: TempDir,
    }

    impl Folder {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            let store = Store::open(dir.path(), Arc::new(|job, _, _| job.status.to_string())).unwrap();
            Self { store, dir }
        }

        /// A job in progress, with its attempt.
        fn claimed(&self) -> (JobId, u32) {
            let id = JobId::new(JobKind::Run);
            let job = NewJob::run(EndpointId::default(), "{}", 1);
            let row = NewRow { id: id.clone(), job, retention: Duration::from_secs(1), now: NOW };
            self.store.insert(row, QueueLimit { jobs: 100, bytes: u64::MAX }).wait().unwrap();
            (id, self.claim())
        }

        fn claim(&self) -> u32 {
            self.store.claim(&EndpointId::default(), "cpu", NOW).wait().unwrap().unwrap().attempt
        }

        fn save(&self, (id, attempt): &(JobId, u32), state: &str) -> Result<bool, StoreError> {
            self.store.save_state(id, *attempt, state.repeat(1000).into_bytes()).wait()
        }

        fn saved(&self, (id, attempt): &(JobId, u32)) -> Option<String> {
            let state = self.store.saved_state(id, *attempt).unwrap()?;
            Some(String::from_utf8(state).unwrap()[..3].to_owned())
        }

        fn contents(&self) -> i64 {
            let count = |db: &Connection| {
                Ok(db.query_row(
                    "select count(*) from contents where id not in (select input from jobs)",
                    [],
                    |row| row.get(0),
                )?)
            };
            self.store.read(count).unwrap()
        }
    }

    fn on_disk(dir: &Path, text: &str) -> bool {
        std::fs::read_dir(dir).unwrap().any(|entry| {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }

    #[test]
    fn a_save_replaces_the_last_and_a_later_attempt_finds_it() {
        let folder = Folder::new();
        let job = folder.claimed();
        assert_eq!(folder.saved(&job), None);
        for state in ["<1>", "<2>", "<3>"] {
            assert_eq!(folder.save(&job, state), Ok(true));
            assert_eq!((folder.saved(&job).as_deref(), folder.contents()), (Some(state), 1));
        }
        assert!(folder.store.end(&job.0, job.1, End::Released, NOW).wait().unwrap());
        assert_eq!(folder.save(&job, "<4>"), Ok(false), "it is nobody's now");
        let later = (job.0.clone(), folder.claim());
        assert_eq!((later.1, folder.saved(&later).as_deref()), (2, Some("<3>")));
        assert_eq!(folder.save(&job, "<4>"), Ok(false), "it is another attempt's now");
        assert_eq!((folder.saved(&job), folder.saved(&later).as_deref()), (None, Some("<3>")));
    }

    /// Ends a job that was saved.
    #[track_caller]
    fn assert_forgets(end: impl FnOnce(&Store, &JobId, u32)) {
        let folder = Folder::new();
        let job = folder.claimed();
        folder.save(&job, "<1>").unwrap();
        end(&folder.store, &job.0, job.1);
        assert_eq!((folder.contents(), folder.saved(&job)), (0, None));
    }

    #[test]
    fn no_end_of_a_job_leaves_its_saved_state() {
        let error = || "it failed".to_owned();
        let ends = [
            End::Completed { images: Arc::new([]), warnings: Arc::new([]) },
            End::Stored { images: Arc::new([]), warnings: Arc::new([]) },
            End::Failed { error: error() },
            End::TimedOut { error: error() },
        ];
        for end in ends {
            assert_forgets(|store, id, attempt| assert!(store.end(id, attempt, end, NOW).wait().unwrap()));
        }
        assert_forgets(|store, id, _| {
            assert!(store.cancel(&EndpointId::default(), id, NOW).wait().unwrap().is_some());
        });
        assert_forgets(|store, _, _| {
            assert_eq!(store.requeue_orphans(1, error(), NOW).wait().unwrap().failed, 1);
        });
        assert_forgets(|store, id, attempt| {
            assert!(store.end(id, attempt, End::Released, NOW).wait().unwrap());
            assert_eq!(store.purge(&EndpointId::default(), i64::MAX).wait().unwrap().count, 1);
        });
    }

    #[test]
    fn nothing_of_a_saved_state_is_left_once_its_job_is_forgotten() {
        let folder = Folder::new();
        let job = folder.claimed();
        for state in ["<state 1>", "<state 22>", "<state 333>"] {
            folder.save(&job, state).unwrap();
        }
        assert!(on_disk(folder.dir.path(), "<state 333>"));
        let later = NOW + Duration::from_hours(24 * 8);
        while folder.store.forget_expired(later).wait().unwrap().more {}
        assert!(folder.store.clear_traces().unwrap());
        assert!(!on_disk(folder.dir.path(), "<state "));
    }

    #[test]
    fn a_full_disk_refuses_a_save_and_keeps_the_last_one() {
        let folder = Folder::new();
        let job = folder.claimed();
        folder.save(&job, "<1>").unwrap();
        folder.store.provoke("pragma max_page_count = 1");
        assert_eq!(
            folder.store.save_state(&job.0, job.1, vec![b'x'; 1_000_000]).wait(),
            Err(StoreError::Full)
        );
        assert_eq!(folder.saved(&job).as_deref(), Some("<1>"));
        folder.store.provoke("pragma max_page_count = 1000000");
        assert_eq!(folder.save(&job, "<2>"), Ok(true));
    }
}
