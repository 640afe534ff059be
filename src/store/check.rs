//! Whether a data folder's database is sound, and what it holds. Changes nothing.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;
use super::look::Look;
use super::open::SCHEMA;

/// What was found in a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The version of its schema. The next start brings an older one to `current`.
    pub version: u32,
    pub current: u32,
    /// Whether a server uses it.
    pub in_use: bool,
    /// Jobs by endpoint and state. RETRIED is not a state: it counts how often jobs were put back into the queue.
    pub jobs: Vec<(String, String, u64)>,
    /// Inputs, pictures and the like.
    pub contents: u64,
    pub bytes: u64,
    /// What is wrong, a sentence each.
    pub faults: Vec<String>,
}

/// How many faults are worth reading.
const FAULTS: usize = 20;

/// Contents that are named and missing, and how many jobs are counted wrongly: queries that find nothing in a sound database
/// with the current schema.
const INVARIANTS: [(&str, &str); 6] = [
    ("select count(*) from jobs where input not in (select id from contents)", "jobs without their input"),
    (
        "select count(*) from images where png not in (select id from contents) and not withheld",
        "pictures without their bytes",
    ),
    ("select count(*) from webhooks where url not in (select id from contents)", "webhooks without their URL"),
    (
        "select count(*) from outbox where url not in (select id from contents) or body not in (select id from contents)",
        "messages to webhooks without their text",
    ),
    (
        "select count(*) from saved_states where state not in (select id from contents)",
        "saved states without their bytes",
    ),
    (
        "select count(*) from tally where counted <> 'RETRIED' and jobs <>
             (select count(*) from jobs where jobs.endpoint = tally.endpoint and jobs.status = tally.counted)",
        "counts of jobs that are wrong",
    ),
];

/// Looks at the database in `dir`. None: there is none yet.
pub fn check(dir: &Path) -> Result<Option<Findings>, StoreError> {
    let Some(look) = Look::at(dir)? else { return Ok(None) };
    let (version, in_use) = (look.version, look.in_use);
    // One snapshot.
    let db = look.db().unchecked_transaction()?;
    let mut faults = faults(&db)?;
    if version == SCHEMA && faults.is_empty() {
        for (query, name) in INVARIANTS {
            match db.query_row(query, [], |row| row.get::<_, i64>(0))? {
                0 => {}
                count => faults.push(format!("{count} {name}")),
            }
        }
    }
    let jobs = db
        .prepare("select endpoint, counted, jobs from tally where jobs > 0 order by endpoint, counted")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned())))?
        .collect::<Result<_, _>>()?;
    let (contents, bytes): (i64, i64) =
        db.query_row("select count(*), coalesce(sum(length(bytes)), 0) from contents", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (contents, bytes) = (contents.cast_unsigned(), bytes.cast_unsigned());
    Ok(Some(Findings { version, current: SCHEMA, in_use, jobs, contents, bytes, faults }))
}

/// What SQLite itself finds wrong.
fn faults(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut faults: Vec<String> = db
        .prepare(&format!("pragma integrity_check({FAULTS})"))?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    faults.retain(|line| line != "ok");
    let strays: i64 = db.query_row("select count(*) from pragma_foreign_key_check", [], |row| row.get(0))?;
    if strays > 0 {
        faults.push(format!("{strays} rows of jobs that are not there"));
    }
    Ok(faults.into_iter().map(|line| line.replace('\n', " ")).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::Arc;
    use std::time::SystemTime;

    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;
    use crate::store::open::DATABASE;

    fn open(dir: &Path) -> Store {
        Store::open(dir, Arc::new(|_, _, _| String::new())).unwrap()
    }

    /// Every file of a folder with its bytes and when it was written.
    fn files(dir: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
        let file = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            (path.display().to_string(), (fs::read(&path).unwrap(), modified))
        };
        fs::read_dir(dir).unwrap().map(file).collect()
    }

    const ROWS: &str = "insert into contents (id, bytes) values (1, x'00');
        insert into jobs (id, endpoint, status, low_priority, execution_timeout_ms, ttl_ms, retention_ms, seed,
            created_at, input) values ('a', 'e', 'IN_QUEUE', 0, 1, 1, 1, 1, 1, 1)";

    #[test]
    fn a_folder_is_checked_while_it_is_used_after_a_crash_and_at_rest_without_a_change() {
        let dir = TempDir::new().unwrap();
        assert_eq!(check(dir.path()), Ok(None));
        let store = open(dir.path());
        store.provoke(ROWS);
        let found = check(dir.path()).unwrap().unwrap();
        let queued = vec![("e".to_owned(), "IN_QUEUE".to_owned(), 1)];
        assert_eq!((found.in_use, &found.jobs, found.contents), (true, &queued, 1));
        assert_eq!(found.faults, Vec::<String>::new());

        // As a crash leaves it: with a log.
        let crashed = TempDir::new().unwrap();
        for name in ["stablehand.db", "stablehand.db-wal", "lock"] {
            fs::copy(dir.path().join(name), crashed.path().join(name)).unwrap();
        }
        assert!(fs::metadata(crashed.path().join("stablehand.db-wal")).unwrap().len() > 0);
        drop(store);
        for folder in [dir.path(), crashed.path()] {
            let before = files(folder);
            let found = check(folder).unwrap().unwrap();
            assert_eq!((found.in_use, &found.jobs, found.contents), (false, &queued, 1));
            assert!(files(folder) == before, "{:?} {:?}", before.keys(), files(folder).keys());
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        store.provoke(ROWS);
        store.provoke("pragma foreign_keys = off");
        store.provoke("delete from contents; insert into warnings values (99, 0); update tally set jobs = 5");
        drop(store);
        let faults = check(dir.path()).unwrap().unwrap().faults;
        assert_eq!(faults, ["1 rows of jobs that are not there"]);
        let store = open(dir.path());
        store.provoke("delete from warnings");
        drop(store);
        let faults = check(dir.path()).unwrap().unwrap().faults;
        assert_eq!(faults, ["1 jobs without their input", "1 counts of jobs that are wrong"]);
    }

    #[test]
    fn a_newer_folder_and_one_of_another_program_are_refused() {
        let dir = TempDir::new().unwrap();
        drop(open(dir.path()));
        let path = dir.path().join(DATABASE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[60..64].copy_from_slice(&1000_u32.to_be_bytes());
        fs::write(&path, &bytes).unwrap();
        assert_eq!(check(dir.path()), Err(StoreError::Newer(path.clone())));
        fs::write(&path, "no database").unwrap();
        assert_eq!(check(dir.path()), Err(StoreError::NotOurs(path)));
    }
}
