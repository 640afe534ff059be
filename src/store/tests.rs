//! Broken data folders, and the writer when writes fail.

use std::fs;
use std::sync::mpsc::channel;

use tempfile::TempDir;

use super::*;
use crate::domain::{EndpointId, JobId, JobKind, NewJob, Timestamp};

const NOW: Timestamp = Timestamp(1_000_000);

fn row(input: &str) -> NewRow {
    NewRow {
        id: JobId::new(JobKind::Run),
        job: NewJob::run(EndpointId::default(), input, u64::MAX),
        retention: std::time::Duration::from_secs(1),
        now: NOW,
    }
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, Arc::new(|job, _, _| job.status.to_string()))
}

fn open_error(dir: &Path) -> String {
    open(dir).map(drop).unwrap_err().to_string()
}

#[test]
fn a_folder_in_use_is_refused_until_it_is_free() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    assert_eq!(
        open_error(dir.path()),
        format!("another stablehand uses {}; stop it or choose another --data-dir", dir.path().display())
    );
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stablehand.db");
    let garbage = "not a database, but somebody's diary ".repeat(200);
    fs::write(&path, &garbage).unwrap();
    assert!(open_error(dir.path()).contains("is not a stablehand database"));
    assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
}

#[test]
fn another_programs_database_is_refused() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("stablehand.db");
    Connection::open(&path).unwrap().execute_batch("create table diary (day text)").unwrap();
    assert_eq!(open(dir.path()).map(drop), Err(StoreError::NotOurs(path)));
}

#[test]
fn a_damaged_database_is_reported_as_damaged() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let path = dir.path().join("stablehand.db");
    let mut bytes = fs::read(&path).unwrap();
    // The schema's page, behind the file's header.
    bytes[100..4096].fill(0xAA);
    fs::write(&path, bytes).unwrap();
    assert_eq!(open(dir.path()).map(drop), Err(StoreError::Damaged));
}

#[test]
fn a_folder_that_cannot_be_made_is_reported() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let sentence = open_error(&path);
        assert!(sentence.contains("it is not a folder; choose another --data-dir"), "{sentence}");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_without_write_permission_is_reported() {
    use std::os::unix::fs::PermissionsExt;

    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(dir.path().join("probe"), "").is_ok() {
        return; // root may write anywhere
    }
    assert!(open_error(dir.path()).contains("permission denied"));
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_the_folder_and_its_files() {
    use std::os::unix::fs::PermissionsExt;

    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("made");
    let store = open(&dir).unwrap();
    store.insert(row("{}"), room(1)).wait().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

fn room(jobs: u64) -> QueueLimit {
    QueueLimit { jobs, bytes: u64::MAX }
}

#[test]
fn the_bytes_of_queued_inputs_are_counted_through_every_transition() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let endpoint = EndpointId::default();
    let counted =
        |store: &Store| store.writer.alone(|db| queued_bytes::of(db, EndpointId::DEFAULT)).wait().unwrap();
    let one = content::stored_size(2);
    let rows: [NewRow; 3] = std::array::from_fn(|_| row("{}"));
    let ids: Vec<JobId> = rows.iter().map(|row| row.id.clone()).collect();
    for row in rows {
        store.insert(row, room(100)).wait().unwrap();
    }
    assert_eq!(counted(&store), 3 * one);
    let limit = QueueLimit { jobs: 100, bytes: 4 * one };
    assert_eq!(store.insert(row(&"x".repeat(5000)), limit).wait(), Ok(Inserted::TooLarge));
    assert_eq!(store.insert(row("{}"), limit).wait(), Ok(Inserted::Queued));
    assert_eq!(store.insert(row("{}"), limit).wait(), Ok(Inserted::TooLarge));
    let claim = store.claim(&endpoint, "cpu", NOW).wait().unwrap().unwrap();
    assert_eq!(counted(&store), 3 * one);
    store.end(&claim.id, claim.attempt, End::Released, NOW).wait().unwrap();
    assert_eq!(counted(&store), 4 * one);
    store.cancel(&endpoint, &ids[1], NOW).wait().unwrap();
    assert_eq!(counted(&store), 3 * one);
    let claim = store.claim(&endpoint, "cpu", NOW).wait().unwrap().unwrap();
    store.end(&claim.id, claim.attempt, End::Failed { error: "no".to_owned() }, NOW).wait().unwrap();
    assert_eq!(counted(&store), 2 * one);
    store.retry(&endpoint, &claim.id, NOW).wait().unwrap().unwrap().unwrap();
    assert_eq!(counted(&store), 3 * one);
    // The next start counts the rows.
    drop(store);
    let store = open(dir.path()).unwrap();
    assert_eq!(counted(&store), 3 * one);
    while store.purge(&endpoint, i64::MAX).wait().unwrap().more {}
    assert_eq!(counted(&store), 0);
}

#[test]
fn a_failed_write_in_a_group_undoes_only_itself() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let (first, second, twice) = (row("{}"), row("{}"), row("{}"));
    let again = NewRow { id: twice.id.clone(), ..row("{}") };
    // While the writer is blocked, all of these collect into one group.
    let (release, held) = channel::<()>();
    std::thread::scope(|scope| {
        let (holding, is_held) = channel();
        let writer = &store.writer;
        scope.spawn(move || {
            writer
                .alone(move |_| {
                    holding.send(()).unwrap();
                    held.recv().unwrap();
                    Ok(())
                })
                .wait()
                .unwrap();
        });
        is_held.recv().unwrap();
        let sent: Vec<_> = [first, twice, again, second]
            .map(|row| store.insert(row, room(100)).into_future())
            .into_iter()
            .chain([store
                .writer
                .grouped(|db| {
                    db.execute_batch("update jobs set attempt = 99")?;
                    panic!("a panic undoes only itself, too")
                })
                .into_future()])
            .collect();
        release.send(()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let outcomes: Vec<_> = runtime.block_on(async {
            let mut outcomes = Vec::new();
            for answer in sent {
                outcomes.push(answer.await);
            }
            outcomes
        });
        let (queued, internal) = (Ok(Inserted::Queued), Err(StoreError::Internal));
        assert_eq!(outcomes, [queued.clone(), queued.clone(), internal.clone(), queued, internal]);
    });
    assert_eq!(store.numbers(&EndpointId::default()).unwrap().jobs.in_queue, 3);
    assert_eq!(store.claim(&EndpointId::default(), "cpu", NOW).wait().unwrap().unwrap().attempt, 1);
}

#[test]
fn a_full_disk_is_survived_without_a_restart() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let kept = row("{}");
    let id = kept.id.clone();
    store.insert(kept, room(100)).wait().unwrap();
    store.provoke("pragma max_page_count = 1");
    let big = "x".repeat(1_000_000);
    assert_eq!(store.insert(row(&big), room(100)).wait(), Err(StoreError::Full));
    assert_eq!(store.insert(row(&big), room(100)).wait(), Err(StoreError::Full));
    assert!(store.find(&EndpointId::default(), &id, NOW).unwrap().is_some());
    store.provoke("pragma max_page_count = 1000000");
    assert_eq!(store.insert(row(&big), room(100)).wait(), Ok(Inserted::Queued));
    assert_eq!(store.numbers(&EndpointId::default()).unwrap().jobs.in_queue, 2);
}

#[test]
fn another_programs_lock_is_reported_and_does_no_harm() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    store.provoke("pragma busy_timeout = 1");
    let intruder = Connection::open(dir.path().join("stablehand.db")).unwrap();
    intruder.execute_batch("begin immediate").unwrap();
    assert_eq!(store.insert(row("{}"), room(100)).wait(), Err(StoreError::Locked));
    intruder.execute_batch("rollback").unwrap();
    assert_eq!(store.insert(row("{}"), room(100)).wait(), Ok(Inserted::Queued));
}

#[test]
fn after_close_writes_are_refused_and_nothing_hangs() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    store.close();
    assert_eq!(store.insert(row("{}"), room(100)).wait(), Err(StoreError::Closed));
}

#[test]
fn frequent_queries_use_their_index() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path()).unwrap();
    let plan = |query: &str| {
        store
            .read(|db| {
                let mut statement = db.prepare(&format!("explain query plan {query}"))?;
                // The plan does not depend on the bound values.
                let mut rows = statement.raw_query();
                let mut lines = Vec::new();
                while let Some(row) = rows.next()? {
                    lines.push(row.get::<_, String>("detail")?);
                }
                Ok(lines.join("; "))
            })
            .unwrap()
    };
    for (query, wanted) in [
        (claim::CLAIM, "SEARCH jobs USING COVERING INDEX jobs_queued"),
        (list::LIST, "SEARCH jobs USING INDEX jobs_listed"),
        (retention::PURGE, "SEARCH jobs USING COVERING INDEX jobs_queued"),
        (retention::EXPIRED, "SEARCH jobs USING INDEX jobs_expiring"),
    ] {
        let plan = plan(query);
        assert!(plan.contains(wanted) && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
