//! A connection that looks at a data folder's database and changes nothing: no file of the folder, and not what a server
//! does that uses it.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use super::open::{DATABASE, FLAGS, LOCK, PATIENCE, SCHEMA, schema_version};

/// A look at one database.
pub(super) struct Look {
    db: Connection,
    /// The version of its schema.
    pub version: u32,
    /// Whether a server uses it.
    pub in_use: bool,
    /// No server starts with the folder meanwhile.
    _lock: Option<File>,
}

impl Look {
    /// Opens the database of a data folder. None: there is none. Refuses another program's and a newer stablehand's.
    pub fn at(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = dir.join(DATABASE);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::folder(dir, &error)),
        }
        let lock = File::open(dir.join(LOCK)).ok();
        let is_taken = |lock: &File| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
        let in_use = lock.as_ref().is_some_and(is_taken);
        let db = connect(&path, in_use)?;
        db.busy_timeout(PATIENCE)?;
        db.pragma_update(None, "temp_store", "memory")?;
        let version = schema_version(&db).map_err(|error| match StoreError::from(error) {
            StoreError::Damaged => StoreError::NotOurs(path.clone()),
            error => error,
        })?;
        match version {
            None => Err(StoreError::NotOurs(path)),
            Some(0) => Ok(None),
            Some(version) if version > SCHEMA => Err(StoreError::Newer(path)),
            Some(version) => Ok(Some(Self { db, version, in_use, _lock: lock.filter(|_| !in_use) })),
        }
    }

    pub fn db(&self) -> &Connection {
        &self.db
    }
}

fn connect(path: &Path, in_use: bool) -> Result<Connection, StoreError> {
    if in_use {
        // The server has made the files that a reader needs.
        return Ok(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | FLAGS)?);
    }
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if !fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        // Nobody changes the file, so SQLite needs no other one.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | FLAGS;
        return Ok(Connection::open_with_flags(immutable(path), flags)?);
    }
    // A server ended without time to copy its log. Reading it takes the rights of a writer; its index stays in memory, and
    // the log stays as it is.
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
    db.pragma_update(None, "locking_mode", "exclusive")?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(db)
}

/// The URI of a file that does not change.
fn immutable(path: &Path) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            byte => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri
}
