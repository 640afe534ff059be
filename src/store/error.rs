//! What can go wrong with the data folder, in sentences that a person can act on. Never SQL.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the store could not be opened, read or written. Everyone who waits for a failed group gets a clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("another stablehand uses {}; stop it or choose another --data-dir", .0.display())]
    InUse(PathBuf),
    #[error("the data folder {} cannot be used: {reason}; choose another --data-dir", .path.display())]
    Folder { path: PathBuf, reason: String },
    #[error(
        "{} is not a stablehand database; move it away or choose another --data-dir", .0.display()
    )]
    NotOurs(PathBuf),
    #[error(
        "{} was written by a newer stablehand; run that version or choose another --data-dir",
        .0.display()
    )]
    Newer(PathBuf),
    #[error(
        "a restore into {} was cut short: run `stablehand restore` again, or empty the folder", .0.display()
    )]
    HalfRestored(PathBuf),
    #[error("the job database is damaged; move it away, or restore a copy, and start again")]
    Damaged,
    #[error("the job database is locked by another program; close it and try again")]
    Locked,
    #[error("the disk that holds the job database is full; make room and try again")]
    Full,
    #[error("the disk that holds the job database has less than {} MiB left; make room and try again", .reserve >> 20)]
    Short { reserve: u64 },
    #[error("the job database cannot be written: its file or disk is read-only")]
    ReadOnly,
    #[error("the disk that holds the job database reports an error; see the system's log")]
    Disk,
    #[error("the server is shutting down")]
    Closed,
    #[error("the job database failed unexpectedly; the server's log says more")]
    Internal,
}

impl StoreError {
    /// Whether the same call may work later without a restart.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Locked | Self::Full | Self::Short { .. } | Self::ReadOnly | Self::Disk)
    }

    pub(super) fn folder(path: &Path, error: &io::Error) -> Self {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "it is not a folder".to_owned(),
            io::ErrorKind::StorageFull => "its disk is full".to_owned(),
            io::ErrorKind::ReadOnlyFilesystem => "its disk is read-only".to_owned(),
            _ => error.to_string(),
        };
        Self::Folder { path: path.to_owned(), reason }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => {
                tracing::warn!(%error, "the disk failed under the job database");
                Self::Disk
            }
            _ => {
                tracing::error!(%error, "the job database failed");
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_sentence_repeats_what_sqlite_says() {
        let error = rusqlite::Connection::open_in_memory()
            .unwrap()
            .execute_batch("select secret from nowhere")
            .unwrap_err();
        let sentence = StoreError::from(error).to_string();
        assert!(!sentence.contains("secret") && !sentence.contains("select"), "{sentence}");
    }
}
