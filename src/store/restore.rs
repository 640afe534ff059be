//! A data folder from a backup: all of it, or nothing.
//!
//! What is restored is first written into a folder of its own in the data folder, and then moved to its place. As long as
//! that folder is there, the restore is not done: no server starts, and the next restore begins by removing what is there.
//! So a restore that is cut short, by a power loss for example, never leaves jobs without their keys.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::backup::{BackupError, SECRETS, Secret};
use super::open::{DATABASE, FLAGS, LOCK, PATIENCE, RESTORING, SCHEMA, lock, schema_version};
use super::schema::FolderState;

/// The files of a database.
const DATABASE_FILES: [&str; 3] = [DATABASE, "stablehand.db-wal", "stablehand.db-shm"];

/// A restore under way. If it is dropped before [`Self::finish`], the folder is as it was before.
pub struct Restore<'a> {
    dir: PathBuf,
    /// The names of the files that go with the database.
    beside: &'a [&'static str],
    /// The secrets that the backup has.
    secrets: Vec<Secret>,
    had_folder: bool,
    had_lock: bool,
    is_finished: bool,
    _lock: File,
}

impl<'a> Restore<'a> {
    /// Reads and checks the backup `file` for the data folder `dir`, which may have neither a database nor one of the files
    /// `beside` it. The next start of a server brings an older schema up to date.
    pub fn begin(file: &Path, dir: &Path, beside: &'a [&'static str]) -> Result<Self, BackupError> {
        let path = || file.display().to_string();
        let unreadable = |error: io::Error| BackupError::Read { path: path(), reason: error.to_string() };
        let mut backup = File::open(file).map_err(unreadable)?;
        let (had_folder, had_lock) = (dir.is_dir(), dir.join(LOCK).exists());
        // A folder in use is said to be that, and not to be locked.
        refuse_used(dir, beside)?;
        let mut restore = Self {
            _lock: lock(dir)?,
            dir: dir.to_owned(),
            beside,
            secrets: Vec::new(),
            had_folder,
            had_lock,
            // Until the folder is found empty, nothing in it may be removed.
            is_finished: true,
        };
        let folder = |error: io::Error| StoreError::folder(dir, &error);
        refuse_used(dir, beside)?;
        if restore.staging().symlink_metadata().is_ok() {
            restore.remove_all().map_err(folder)?;
        }
        restore.is_finished = false;
        crate::private_dir::create(&restore.staging()).map_err(folder)?;
        let copy = restore.staging().join(DATABASE);
        let mut target = super::open::owner_only().open(&copy).map_err(folder)?;
        io::copy(&mut backup, &mut target).map_err(|error| match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full.into(),
            _ => unreadable(error),
        })?;
        restore.secrets = examine(&restore.staging(), &path)?;
        target.sync_all().map_err(folder)?;
        Ok(restore)
    }

    /// The secrets that the backup has. Their files belong into [`Self::staging`].
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The folder whose files are moved to the data folder at the end.
    pub fn staging(&self) -> PathBuf {
        self.dir.join(RESTORING)
    }

    /// Moves everything to its place.
    pub fn finish(mut self) -> Result<(), BackupError> {
        let dir = self.dir.display().to_string();
        self.move_all().map_err(|error| BackupError::Unfinished { dir, reason: error.to_string() })?;
        self.is_finished = true;
        Ok(())
    }

    fn move_all(&self) -> io::Result<()> {
        for name in self.names() {
            match fs::rename(self.staging().join(name), self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        synced(&self.dir)?;
        // From here on, it is done.
        fs::remove_dir_all(self.staging())?;
        synced(&self.dir)
    }

    /// The names of all files that a restore makes.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<'a> {
        names(self.beside)
    }

    /// Removes what this restore, or an earlier one that was cut short, has made. The folder that says so goes last.
    fn remove_all(&self) -> io::Result<()> {
        for name in self.names() {
            match fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        synced(&self.dir)?;
        match fs::remove_dir_all(self.staging()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn leave_no_lock(&self) {
        if !self.had_lock {
            let _ = fs::remove_file(self.dir.join(LOCK));
        }
        if !self.had_folder {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            match self.remove_all() {
                Ok(()) => self.leave_no_lock(),
                Err(error) => tracing::warn!(%error, "what was restored so far could not be removed"),
            }
        }
    }
}

fn names<'a>(beside: &'a [&'static str]) -> impl Iterator<Item = &'static str> + use<'a> {
    DATABASE_FILES.into_iter().chain(beside.iter().copied())
}

/// Refuses a folder that has something of its own, unless that is what an earlier restore has left.
fn refuse_used(dir: &Path, beside: &[&'static str]) -> Result<(), BackupError> {
    let is_there = |name: &str| dir.join(name).symlink_metadata().is_ok();
    match names(beside).find(|name| is_there(name)).filter(|_| !is_there(RESTORING)) {
        Some(name) => Err(BackupError::NotEmpty { dir: dir.display().to_string(), name: name.to_owned() }),
        None => Ok(()),
    }
}

/// Sees to it that names in a folder are on the disk.
fn synced(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// Checks the copy of a backup in `dir`, and takes the secrets out of it.
fn examine(dir: &Path, path: &dyn Fn() -> String) -> Result<Vec<Secret>, BackupError> {
    let damaged = |reason: &str| BackupError::Damaged { path: path(), reason: reason.to_owned() };
    match FolderState::read(dir).map_err(|error| StoreError::folder(dir, &error))? {
        FolderState::Ours { version: 1.., .. } => {}
        FolderState::Newer => return Err(BackupError::Newer { path: path() }),
        FolderState::New | FolderState::Foreign | FolderState::Ours { .. } => {
            return Err(BackupError::Foreign { path: path() });
        }
    }
    let failed = |error: rusqlite::Error| match StoreError::from(error) {
        StoreError::Damaged => damaged("parts of it are missing or overwritten"),
        error => BackupError::Store(error),
    };
    let copy = dir.join(DATABASE);
    let db = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS).map_err(failed)?;
    db.busy_timeout(PATIENCE).map_err(failed)?;
    match schema_version(&db).map_err(failed)? {
        None | Some(0) => return Err(BackupError::Foreign { path: path() }),
        Some(version) if version > SCHEMA => return Err(BackupError::Newer { path: path() }),
        Some(_) => {}
    }
    let verdict: String = db.query_row("pragma integrity_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(damaged(&verdict.replace('\n', " ")));
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
    let secrets = take().map_err(failed)?;
    db.close().map_err(|(_, error)| failed(error))?;
    Ok(secrets)
}

#[cfg(test)]
mod tests;
