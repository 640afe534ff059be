//! A copy of the database in one file, made while a server uses it. [`restore`](super::restore) makes a data folder of it.
//!
//! The copy is a database of its own, as it was at one moment. It may carry secrets of the data folder, in a table that no
//! data folder has.

use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, named_params, params};

use super::StoreError;
use super::look::Look;
use super::open::FLAGS;

/// The table with the secrets. A data folder never has it.
pub(super) const SECRETS: &str = "backup_secrets";

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
    #[error("{dir} has a file {name} already: a backup is restored into an empty data folder only")]
    NotEmpty { dir: String, name: String },
    #[error("the restore into {dir} could not be completed: {reason}; run it again")]
    Unfinished { dir: String, reason: String },
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;

    #[test]
    fn no_file_is_overwritten() {
        let (dir, place) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let file = place.path().join("copy");
        assert!(matches!(back_up(dir.path(), &file, &[]), Err(BackupError::Nothing(_))));
        drop(Store::open(dir.path(), Arc::new(|_, _, _| String::new())).unwrap());
        back_up(dir.path(), &file, &[]).unwrap();
        let before = fs::read(&file).unwrap();
        assert!(matches!(back_up(dir.path(), &file, &[]), Err(BackupError::Write { .. })));
        assert_eq!(fs::read(&file).unwrap(), before);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no temporary file stays");
    }
}
