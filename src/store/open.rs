//! Opens the data folder: the lock, the file, its pragmas and its schema.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use r2d2::Pool;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::{Error as MigrationError, M, Migrations};

use super::StoreError;
use super::content::PAGE;
use crate::private_dir;

pub(super) const DATABASE: &str = "stablehand.db";
pub(super) const LOCK: &str = "lock";
/// The folder of a restore that is under way or was cut short.
pub(super) const RESTORING: &str = "restoring";
pub(super) const STEPS: &[M<'static>] = &[
    M::up(include_str!("../../migrations/01-jobs.sql")),
    M::up(include_str!("../../migrations/02-endpoints.sql")),
    M::up(include_str!("../../migrations/03-requests.sql")),
    M::up(include_str!("../../migrations/04-webhooks.sql")),
    M::up(include_str!("../../migrations/05-clock.sql")),
    M::up(include_str!("../../migrations/06-withheld.sql")),
    M::up(include_str!("../../migrations/07-buckets.sql")),
    M::up(include_str!("../../migrations/08-warnings.sql")),
    M::up(include_str!("../../migrations/09-finish.sql")),
    M::up(include_str!("../../migrations/10-drawn-prompts.sql")),
    M::up(include_str!("../../migrations/11-outbox-job.sql")),
    M::up(include_str!("../../migrations/12-saved-states.sql")),
    M::up(include_str!("../../migrations/13-traces.sql")),
];
/// The version of the schema that this program writes.
#[expect(clippy::cast_possible_truncation, reason = "there are a few")]
pub(super) const SCHEMA: u32 = STEPS.len() as u32;
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);
/// "sthd" in the file's header, so that `file` and this program recognise it.
pub(super) const APPLICATION_ID: i32 = 0x7374_6864;
const READERS: u32 = 8;
/// How long to wait for another program's lock. Clients wait for 3 s, and are to be told the reason before.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Makes the folder if it is absent, readable by its owner only, and takes its lock.
pub(super) fn lock(dir: &Path) -> Result<File, StoreError> {
    let refused = |error: io::Error| StoreError::folder(dir, &error);
    private_dir::create(dir).map_err(refused)?;
    let lock = owner_only().open(dir.join(LOCK)).map_err(refused)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(refused(error)),
    }
}

/// The write connection, with the schema up to date.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let dir = path.parent().unwrap_or(path);
    if dir.join(RESTORING).symlink_metadata().is_ok() {
        return Err(StoreError::HalfRestored(dir.to_owned()));
    }
    // Made here and not by SQLite, so that the file and its log are readable by the owner only.
    owner_only().open(path).map_err(|error| match fs::metadata(path) {
        Ok(_) if error.kind() == io::ErrorKind::PermissionDenied => StoreError::ReadOnly,
        _ => StoreError::folder(dir, &error),
    })?;
    let mut db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
    db.busy_timeout(PATIENCE)?;
    refuse_strangers(&db, path)?;
    // The page size and auto_vacuum only take effect before the first table is made.
    db.pragma_update(None, "page_size", i64::try_from(PAGE).unwrap_or(4096))?;
    db.pragma_update(None, "auto_vacuum", "incremental")?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    // The checkpointer comes long before that, unless something delays it.
    db.pragma_update(None, "wal_autocheckpoint", LONGEST_LOG)?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "secure_delete", true)?;
    // Otherwise deleted bytes could pass through a file in /tmp.
    db.pragma_update(None, "temp_store", "memory")?;
    db.set_prepared_statement_cache_capacity(64);
    MIGRATIONS.to_latest(&mut db).map_err(|error| match error {
        MigrationError::RusqliteError { err, .. } => err.into(),
        error => {
            tracing::error!(%error, "the job database's schema could not be brought up to date");
            StoreError::Damaged
        }
    })?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(db)
}

/// A connection for the checkpointer.
pub(super) fn second_writer(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | FLAGS)?;
    db.pragma_update(None, "synchronous", "full")?;
    Ok(db)
}

/// A pool of connections that cannot write.
pub(super) fn readers(path: &Path) -> Result<Pool<SqliteConnectionManager>, StoreError> {
    let manager = SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | FLAGS)
        .with_init(|db| {
            db.busy_timeout(PATIENCE)?;
            db.set_prepared_statement_cache_capacity(32);
            db.pragma_update(None, "temp_store", "memory")
        });
    Pool::builder().max_size(READERS).test_on_check_out(false).build(manager).map_err(|error| {
        tracing::error!(%error, "the job database cannot be opened for reading");
        StoreError::Internal
    })
}

/// At this many pages of the log, 64 MiB, a commit copies it into the database itself.
const LONGEST_LOG: u32 = 16_384;
/// Each connection is used by one thread at a time; the types make sure of that.
pub(super) const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_NO_MUTEX;

pub(super) fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The version of a database's schema: 0 for an empty one, none for another program's.
pub(super) fn schema_version(db: &Connection) -> rusqlite::Result<Option<u32>> {
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tables: u32 = db.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
    // The schema is committed just before the application id.
    let is_ours = application == APPLICATION_ID || application == 0 && (tables == 0) == (version == 0);
    Ok(u32::try_from(version).ok().filter(|_| is_ours))
}

/// Refuses a file that is no database, another program's or a newer stablehand's, and leaves it as it is.
fn refuse_strangers(db: &Connection, path: &Path) -> Result<(), StoreError> {
    match schema_version(db) {
        Ok(Some(version)) if version > SCHEMA => Err(StoreError::Newer(path.to_owned())),
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(StoreError::NotOurs(path.to_owned())),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(StoreError::NotOurs(path.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}
