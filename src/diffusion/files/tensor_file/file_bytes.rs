//! The bytes of a file of tensors, on disk or inside the binary, read at any place.
//!
//! A file is read, not mapped: truncating a mapped file would kill the process.

use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::time::SystemTime;

pub(super) enum FileBytes {
    OnDisk { file: File, stamp: Stamp },
    Embedded(&'static [u8]),
}

/// Changes when the file is written to.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn from_metadata(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: metadata.modified().ok() }
    }
}

impl FileBytes {
    /// Fails for what is not a file, before it is opened: opening a pipe waits for somebody to write to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?;
        if kind.is_dir() {
            return Err(io::Error::other("it is a folder: name one file in it"));
        }
        if !kind.is_file() {
            return Err(io::Error::other("it is a pipe or a device: copy what it gives into a file"));
        }
        let file = File::open(path)?;
        let stamp = Stamp::from_metadata(&file.metadata()?);
        Ok(Self::OnDisk { file, stamp })
    }

    pub fn length(&self) -> u64 {
        match self {
            Self::OnDisk { stamp, .. } => stamp.length,
            Self::Embedded(bytes) => bytes.len() as u64,
        }
    }

    /// When the file was last written as it was opened.
    pub fn modified(&self) -> Option<SystemTime> {
        match self {
            Self::OnDisk { stamp, .. } => stamp.modified,
            Self::Embedded(_) => None,
        }
    }

    /// Fills `into` from the offset `at` on.
    pub fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::OnDisk { file, .. } => read_exact_at(file, at, into),
            Self::Embedded(bytes) => {
                let mut cursor = Cursor::new(bytes);
                cursor.set_position(at);
                cursor.read_exact(into)
            }
        }
    }

    /// `length` bytes from the offset `at` on. Fails before it takes memory where the file has fewer.
    pub fn read_range(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        if at.checked_add(length).is_none_or(|end| end > self.length()) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.read_at(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether the file was written to since it was opened.
    pub fn has_changed(&self) -> bool {
        match self {
            Self::OnDisk { file, stamp } => {
                !file.metadata().is_ok_and(|now| Stamp::from_metadata(&now) == *stamp)
            }
            Self::Embedded(_) => false,
        }
    }
}

/// Reads without moving the file's position, which threads share.
#[cfg(unix)]
fn read_exact_at(file: &File, at: u64, into: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, into, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, into, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => (into, at) = (&mut into[read..], at + read as u64),
        }
    }
    Ok(())
}
