//! A look at the data folder from outside: what its database is, and whether a server has it open. Changes nothing, and
//! opens no connection: SQLite would make files.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use super::open::{APPLICATION_ID, DATABASE, LOCK, SCHEMA};

/// What a data folder's database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderState {
    /// There is none yet.
    New,
    /// Ours, at this version of its schema; it is brought up to date when it is opened.
    Ours { version: u32, current: u32 },
    /// It was written by a newer stablehand.
    Newer,
    /// Another program's, or no database at all.
    Foreign,
}

/// Where SQLite's header has `user_version` and `application_id`.
const USER_VERSION: usize = 60;
const APPLICATION: usize = 68;
const MAGIC: &[u8] = b"SQLite format 3\0";

impl FolderState {
    /// Reads the header of the folder's database, if it has one.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let mut file = match File::open(dir.join(DATABASE)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::New),
            Err(error) => return Err(error),
        };
        let mut header = [0; 100];
        match file.read_exact(&mut header) {
            // All of it may still be in the log.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && file.metadata()?.len() == 0 => {
                return Ok(Self::New);
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Self::Foreign),
            outcome => outcome?,
        }
        let number = |at: usize| {
            let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
            u32::from_be_bytes(bytes)
        };
        let (version, application) = (number(USER_VERSION), number(APPLICATION));
        // Our mark is written just after the schema, so an unmarked database gets the benefit of the doubt.
        let is_ours = application == APPLICATION_ID.cast_unsigned() || application == 0;
        Ok(if !header.starts_with(MAGIC) || !is_ours {
            Self::Foreign
        } else if version > SCHEMA {
            Self::Newer
        } else {
            Self::Ours { version, current: SCHEMA }
        })
    }
}

/// Whether a server has the folder open.
pub fn is_in_use(dir: &Path) -> bool {
    // Shared and for a moment: a server that starts now is not in its way.
    File::open(dir.join(LOCK))
        .is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_folder_is_looked_at_without_a_trace() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FolderState::read(dir.path()).unwrap(), FolderState::New);
        assert!(!is_in_use(dir.path()));
        let store = Store::open(dir.path(), Arc::new(|_, _, _| String::new())).unwrap();
        assert!(is_in_use(dir.path()));
        drop(store);
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = names();
        let ours = FolderState::Ours { version: SCHEMA, current: SCHEMA };
        assert_eq!(FolderState::read(dir.path()).unwrap(), ours);
        assert!(!is_in_use(dir.path()));
        assert_eq!(names(), before);
    }

    #[test]
    fn other_databases_are_told_from_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(DATABASE);
        fs::write(&path, "this is no database, whatever its name says. ".repeat(9)).unwrap();
        assert_eq!(FolderState::read(dir.path()).unwrap(), FolderState::Foreign);
        fs::write(&path, "short").unwrap();
        assert_eq!(FolderState::read(dir.path()).unwrap(), FolderState::Foreign);
        let mut header = [0; 100];
        header[..16].copy_from_slice(MAGIC);
        header[APPLICATION..APPLICATION + 4].copy_from_slice(&APPLICATION_ID.to_be_bytes());
        header[USER_VERSION..USER_VERSION + 4].copy_from_slice(&1000_u32.to_be_bytes());
        fs::write(&path, header).unwrap();
        assert_eq!(FolderState::read(dir.path()).unwrap(), FolderState::Newer);
    }
}
