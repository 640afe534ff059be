//! The schema of a new database, and databases of other versions.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use stablehand::domain::{Clock, EndpointId, JobId, JobStatus, NewJob, Timestamp};
use stablehand::metrics::Metrics;
use stablehand::queue::{Describe, JobQueue, QueueSettings};
use stablehand::store;
use tempfile::TempDir;

fn open(dir: &Path) -> Result<JobQueue, String> {
    open_at(dir, Clock::system())
}

fn open_at(dir: &Path, clock: Clock) -> Result<JobQueue, String> {
    let describe: Describe = Arc::new(|job, _, _| job.status.to_string());
    JobQueue::open(dir, QueueSettings::default(), clock, describe, Metrics::default())
        .map_err(|error| error.to_string())
}

fn peek(dir: &Path, pragma: &str) -> String {
    let db = Connection::open(dir.join("stablehand.db")).unwrap();
    db.pragma_query_value(None, pragma, |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => number.to_string(),
            value => value.as_str().unwrap_or_default().to_owned(),
        })
    })
    .unwrap()
}

#[test]
fn a_new_folder_gets_every_migration_and_a_second_start_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let steps = files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "sql"));
    let steps = steps.count().to_string();
    for _ in 0..2 {
        let queue = open(dir.path()).unwrap();
        queue.close();
        drop(queue);
        assert_eq!(peek(dir.path(), "user_version"), steps);
    }
    assert_eq!(peek(dir.path(), "auto_vacuum"), "2", "incremental");
    assert_eq!(peek(dir.path(), "journal_mode"), "wal");
    assert_eq!(peek(dir.path(), "page_size"), "4096");
    assert_eq!(peek(dir.path(), "integrity_check"), "ok");
    let db = Connection::open(dir.path().join("stablehand.db")).unwrap();
    let lax: i64 = db
        .query_row(
            "select count(*) from pragma_table_list where schema = 'main' and not strict
             and name not like 'sqlite_%'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(lax, 0, "all tables are strict");
}

/// The time at which `tests/schemas/make.py` lets its jobs begin.
const START: Timestamp = Timestamp(1_700_000_000_000);

#[test]
fn the_database_of_every_earlier_schema_opens_and_keeps_its_jobs() {
    let steps = fs::read_dir("migrations").unwrap().count();
    for version in 1..steps {
        let dir = TempDir::new().unwrap();
        let file = format!("tests/schemas/{version:02}.db");
        assert!(
            Path::new(&file).is_file(),
            "{file} is missing: `python tests/schemas/make.py {version}` writes it"
        );
        fs::copy(&file, dir.path().join("stablehand.db")).unwrap();
        assert_eq!(peek(dir.path(), "user_version"), version.to_string());
        let found = store::check(dir.path()).unwrap().unwrap();
        assert_eq!((found.version as usize, found.faults), (version, vec![]), "{file}");

        let (clock, _) = Clock::manual(START + Duration::from_mins(1));
        let queue = open_at(dir.path(), clock).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let endpoint = EndpointId::default();
        let job = |number: u32| {
            let id = JobId::parse(&format!("018bcfe5-6800-7000-8000-{number:012}")).unwrap();
            let job = runtime.block_on(queue.find(&endpoint, &id)).unwrap().unwrap();
            assert_eq!(job.input, format!(r#"{{"prompt":"job {number}"}}"#), "{file}");
            assert_eq!(job.seed, u64::from(number), "{file}");
            job
        };
        let states = [1, 2, 3, 4, 5].map(|number| job(number).status);
        // The job that ran when the server ended is put back.
        let expected = [
            JobStatus::InQueue,
            JobStatus::InQueue,
            JobStatus::Completed,
            JobStatus::Failed,
            JobStatus::Cancelled,
        ];
        assert_eq!(states, expected, "{file}");
        assert_eq!(job(4).error.as_deref(), Some("It failed."), "{file}");
        let done = job(3);
        assert_eq!(done.images.len(), 1 + usize::from(version >= 6) + usize::from(version >= 7), "{file}");
        let picture = runtime.block_on(queue.image(&endpoint, &done.id, 0)).unwrap().unwrap();
        assert_eq!(picture, b"a picture", "{file}");
        assert_eq!(done.warnings.len(), usize::from(version >= 8), "{file}");
        queue.close();
        drop(queue);
        assert_eq!(peek(dir.path(), "user_version"), steps.to_string());
        assert_eq!(store::check(dir.path()).unwrap().unwrap().faults, Vec::<String>::new(), "{file}");
    }
}

#[test]
fn a_newer_database_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let db = Connection::open(dir.path().join("stablehand.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let bytes = || fs::read(dir.path().join("stablehand.db")).unwrap();
    let before = bytes();
    let error = open(dir.path()).map(drop).unwrap_err();
    assert!(error.contains("was written by a newer stablehand"), "{error}");
    assert!(bytes() == before);
}

#[test]
fn jobs_survive_a_second_start() {
    let dir = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let queue = open(dir.path()).unwrap();
    let job = NewJob::run(EndpointId::default(), r#"{"prompt":"a fox"}"#, 7);
    let id = runtime.block_on(queue.submit(job)).unwrap().id;
    drop(queue);
    let queue = open(dir.path()).unwrap();
    let job = runtime.block_on(queue.find(&EndpointId::default(), &id)).unwrap().unwrap();
    assert_eq!((job.input.as_str(), job.seed), (r#"{"prompt":"a fox"}"#, 7));
}
