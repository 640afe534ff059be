//! A copy of the database in one file, made while a server uses it, and a data folder made from such a copy.
//!
//! The copy is a database of its own, as it was at one moment. It may carry secrets of the data folder, in a table that no
//! data folder has.

use std::fs::File;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, named_params, params};

use super::StoreError;
use super::look::Look;
use super::open::{DATABASE, FLAGS, PATIENCE, SCHEMA, lock, schema_version};

/// The table with the secrets. A data folder never has it.
const SECRETS: &str = "backup_secrets";

/// Why there is no copy, or no folder from a copy, as a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no job database in {0}: name the data folder with --data-dir")]
    Nothing(String),
    #[error("cannot write the backup {path}: {reason}")]
    Write { path: String, reason: String },
    #[error("cannot read the backup {path}: {reason}")]
    Read { path: String, reason: String },
    #[error("{path} is no backup of stablehand")]
    Foreign { path: String },
    #[error("the backup {path} was written by a newer stablehand: restore it with that version")]
    Newer { path: String },
    #[error("the backup {path} is damaged: {reason}")]
    Damaged { path: String, reason: String },
    #[error("{0} has a job database already: a backup is restored into an empty data folder only")]
    NotEmpty(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A secret of the data folder: the name of its file, and its text.
pub type Secret = (String, String);

/// Writes a copy of the database in `dir` to `file`, which must not exist, with `secrets` in it. Servers go on meanwhile.
/// Returns the bytes written.
pub fn back_up(dir: &Path, file: &Path, secrets: &[Secret]) -> Result<u64, BackupError> {
    let unwritable = |reason: String| BackupError::Write { path: file.display().to_string(), reason };
    let failed = |error: io::Error| unwritable(error.to_string());
    let source = Look::at(dir)?.ok_or_else(|| BackupError::Nothing(dir.display().to_string()))?;
    if file.symlink_metadata().is_ok() {
        return Err(unwritable("there is such a file already".to_owned()));
    }
    // Complete or not at all, and only its owner can read it.
    let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let copy = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    // One snapshot, without the pages that are free. Writers need not wait.
    // The name need not be UTF-8.
    let target = copy.path().as_os_str().as_encoded_bytes();
    let copied = source.db().execute("vacuum into cast(?1 as text)", params![target]);
    copied.map_err(|error| match StoreError::from(error) {
        StoreError::Full => unwritable("its disk is full".to_owned()),
        error => unwritable(error.to_string()),
    })?;
    drop(source);
    if !secrets.is_empty() {
        let write = || -> rusqlite::Result<()> {
            let db = Connection::open_with_flags(copy.path(), OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
            db.execute_batch(&format!(
                "create table {SECRETS} (name text primary key, secret text not null) strict"
            ))?;
            for (name, secret) in secrets {
                db.execute(
                    &format!("insert into {SECRETS} values (:name, :secret)"),
                    named_params! {":name": name, ":secret": secret},
                )?;
            }
            db.close().map_err(|(_, error)| error)
        };
        write().map_err(|error| unwritable(StoreError::from(error).to_string()))?;
    }
    copy.as_file().sync_all().map_err(failed)?;
    let bytes = copy.as_file().metadata().map_err(failed)?.len();
    copy.persist_noclobber(file).map_err(|error| failed(error.error))?;
    Ok(bytes)
}

/// Makes the database of `dir`, which must have none, from the backup `file`. Returns the secrets in it. The next start of a
/// server brings an older schema up to date.
pub fn restore(file: &Path, dir: &Path) -> Result<Vec<Secret>, BackupError> {
    let path = || file.display().to_string();
    let unreadable = |error: io::Error| BackupError::Read { path: path(), reason: error.to_string() };
    let mut backup = File::open(file).map_err(unreadable)?;
    let _lock = lock(dir)?;
    let database = dir.join(DATABASE);
    if database.symlink_metadata().is_ok() {
        return Err(BackupError::NotEmpty(dir.display().to_string()));
    }
    let folder = |error: io::Error| StoreError::folder(dir, &error);
    let mut copy = tempfile::NamedTempFile::new_in(dir).map_err(folder)?;
    io::copy(&mut backup, &mut copy).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full.into(),
        _ => unreadable(error),
    })?;
    let secrets = examine(copy.path(), &path)?;
    copy.as_file().sync_all().map_err(folder)?;
    copy.persist_noclobber(database).map_err(|error| folder(error.error))?;
    Ok(secrets)
}

/// Checks a copy of a backup, and takes the secrets out of it.
fn examine(copy: &Path, path: &dyn Fn() -> String) -> Result<Vec<Secret>, BackupError> {
    let damaged = |error: rusqlite::Error| match StoreError::from(error) {
        StoreError::Damaged => BackupError::Foreign { path: path() },
        error => BackupError::Store(error),
    };
    let db = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS).map_err(damaged)?;
    db.busy_timeout(PATIENCE).map_err(damaged)?;
    match schema_version(&db).map_err(damaged)? {
        None | Some(0) => return Err(BackupError::Foreign { path: path() }),
        Some(version) if version > SCHEMA => return Err(BackupError::Newer { path: path() }),
        Some(_) => {}
    }
    let verdict: String = db.query_row("pragma integrity_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { path: path(), reason: verdict.replace('\n', " ") });
    }
    let take = || -> rusqlite::Result<Vec<Secret>> {
        if !db.table_exists(None, SECRETS)? {
            return Ok(Vec::new());
        }
        let mut rows = db.prepare(&format!("select name, secret from {SECRETS} order by name"))?;
        let secrets = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect();
        drop(rows);
        // Without a trace: the secrets get files of their own.
        db.execute_batch(&format!("pragma secure_delete = on; drop table {SECRETS}"))?;
        secrets
    };
    let secrets = take().map_err(damaged)?;
    db.close().map_err(|(_, error)| damaged(error))?;
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;

    fn open(dir: &Path) -> Result<Store, StoreError> {
        Store::open(dir, Arc::new(|_, _, _| String::new()))
    }

    fn secret() -> Secret {
        ("signing-key".to_owned(), "s3cret".to_owned())
    }

    #[test]
    fn a_backup_of_a_folder_in_use_makes_the_same_folder_again() {
        let (dir, place, other) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = place.path().join("copy");
        let store = open(dir.path()).unwrap();
        store.provoke(
            "insert into contents (id, bytes) values (7, zeroblob(9000));
             insert into latest_time values (1, 5)",
        );
        let bytes = back_up(dir.path(), &file, &[secret()]).unwrap();
        assert_eq!(bytes, fs::metadata(&file).unwrap().len());
        store.provoke("delete from contents");
        assert_eq!(restore(&file, other.path()).unwrap(), [secret()]);
        let whole = fs::read(other.path().join(DATABASE)).unwrap();
        assert!(!whole.windows(6).any(|part| part == b"s3cret"), "the secret has left the database");
        let restored = open(other.path()).unwrap();
        let contents = restored
            .read(|db| Ok(db.query_row("select sum(length(bytes)) from contents", [], |row| row.get(0))?));
        assert_eq!(contents, Ok(9000));
        // A folder of its own kind: the pragmas that only count before the first table are kept.
        let pragma = |name: &str| {
            restored.read(|db| Ok(db.pragma_query_value(None, name, |row| row.get::<_, i64>(0))?)).unwrap()
        };
        assert_eq!((pragma("page_size"), pragma("auto_vacuum")), (4096, 2));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_s_name_need_not_be_utf_8() {
        use std::os::unix::ffi::OsStrExt as _;
        let place = TempDir::new().unwrap();
        let folder = place.path().join(std::ffi::OsStr::from_bytes(b"mod\xe9l"));
        fs::create_dir(&folder).unwrap();
        drop(open(&folder.join("data")).unwrap());
        back_up(&folder.join("data"), &folder.join("copy"), &[]).unwrap();
        restore(&folder.join("copy"), &folder.join("again")).unwrap();
        drop(open(&folder.join("again")).unwrap());
    }

    #[test]
    fn neither_a_backup_nor_a_folder_is_overwritten() {
        let (dir, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = place.path().join("copy");
        assert!(matches!(back_up(dir.path(), &file, &[]), Err(BackupError::Nothing(_))));
        drop(open(dir.path()).unwrap());
        back_up(dir.path(), &file, &[]).unwrap();
        let before = fs::read(&file).unwrap();
        assert!(matches!(back_up(dir.path(), &file, &[]), Err(BackupError::Write { .. })));
        assert_eq!(fs::read(&file).unwrap(), before);
        assert!(matches!(restore(&file, dir.path()), Err(BackupError::NotEmpty(_))));
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_is_no_backup_leaves_the_folder_empty() {
        let (dir, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = place.path().join("copy");
        drop(open(dir.path()).unwrap());
        back_up(dir.path(), &file, &[]).unwrap();
        let whole = fs::read(&file).unwrap();
        let mut newer = whole.clone();
        newer[60..64].copy_from_slice(&1000_u32.to_be_bytes());
        let mut cut = whole.clone();
        cut.truncate(whole.len() / 2);
        let mut broken = whole.clone();
        // The first pages hold the schema.
        broken[5 * 4096..].fill(0x55);
        for (bytes, sentence) in [
            (b"no database".repeat(99), "no backup of stablehand"),
            (Vec::new(), "no backup of stablehand"),
            (newer, "newer stablehand"),
            (cut, "backup"),
            (broken, "backup"),
        ] {
            fs::write(&file, bytes).unwrap();
            let target = TempDir::new().unwrap();
            let error = restore(&file, target.path()).unwrap_err().to_string();
            assert!(error.contains(sentence) && !error.contains('\n'), "{error}");
            let names: Vec<_> =
                fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["lock"], "{error}");
        }
    }
}
