//! The folder of installed runtimes: lists, checks and removes them, and owns its lock.
//!
//! A runtime is a folder such as `cuda-1.31.1`, laid out as pip lays out `site-packages`, with a `runtime.json` that lists
//! its files. [`install`](super::install) fills a hidden staging folder beside it, and renames it once it is complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::packages::CUDA_VERSION;
use crate::private_dir;

/// The folder `runtimes` of a data folder. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimesDir {
    path: PathBuf,
}

/// What a runtime's `runtime.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeManifest {
    /// The version of onnxruntime-gpu.
    pub version: String,
    pub packages: Vec<InstalledPackage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPackage {
    pub name: String,
    pub version: String,
    pub sha256: String,
    pub files: Vec<InstalledFile>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledFile {
    /// Relative to the runtime's folder, with slashes.
    pub path: String,
    pub bytes: u64,
}

/// A runtime in its folder. Its files may be damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRuntime {
    pub path: PathBuf,
    pub manifest: RuntimeManifest,
}

const CUDA: &str = "cuda-";
const MANIFEST: &str = "runtime.json";
/// Inside a staging folder: a damaged runtime, until it is deleted.
pub(super) const REPLACED: &str = "replaced";
/// Nothing deletes this file: a process could still hold the lock of a deleted one while another locks its successor.
const LOCK: &str = ".lock";

/// Why the folder of runtimes cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimesDirError {
    #[error("another stablehand is installing or removing a runtime: wait until it is done")]
    Busy,
    #[error("cannot write to {path}: {source}", path = .path.display())]
    Disk { path: PathBuf, source: io::Error },
}

impl RuntimesDir {
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { path: data_dir.join("runtimes") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder if it is missing, and locks it against other processes until the returned file is dropped.
    pub(super) fn lock(&self) -> Result<File, RuntimesDirError> {
        let path = self.path.join(LOCK);
        let disk = |source| RuntimesDirError::Disk { path: path.clone(), source };
        // The data folder may not exist yet.
        private_dir::create(&self.path).map_err(disk)?;
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(disk)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(RuntimesDirError::Busy),
            Err(TryLockError::Error(error)) => Err(disk(error)),
        }
    }

    /// The folder of the CUDA runtime of this version. It need not exist.
    pub(super) fn cuda_folder(&self, version: &str) -> PathBuf {
        self.path.join(format!("{CUDA}{version}"))
    }

    /// The hidden folder in which the CUDA runtime of this version is prepared.
    pub(super) fn staging(&self, version: &str) -> PathBuf {
        self.path.join(format!(".{CUDA}{version}.part"))
    }

    /// All runtimes in the folder, damaged ones too, sorted by name.
    pub fn list(&self) -> Vec<InstalledRuntime> {
        let mut found: Vec<_> =
            self.folders(CUDA).into_iter().filter_map(|path| InstalledRuntime::open(&path)).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The CUDA runtime to use: the pinned version, otherwise the last other version that is whole.
    pub fn cuda(&self) -> Option<InstalledRuntime> {
        let mut whole: Vec<_> = self.list().into_iter().filter(InstalledRuntime::is_whole).collect();
        let pinned = whole.iter().position(|runtime| runtime.manifest.version == CUDA_VERSION);
        match pinned {
            Some(index) => Some(whole.swap_remove(index)),
            None => whole.pop(),
        }
    }

    /// The bytes that interrupted installations left behind: packages for the next installation to use, and perhaps a
    /// damaged runtime that was already replaced.
    pub fn unfinished_bytes(&self) -> u64 {
        let folders = self.folders(&format!(".{CUDA}")).into_iter();
        // Besides these there are only a log and small records.
        let large = folders.flat_map(|folder| ["files", "wheels", REPLACED].map(|name| folder.join(name)));
        large.map(|folder| bytes_under(&folder)).sum()
    }

    /// Removes all CUDA runtimes and the remains of interrupted installations. Returns the bytes that this freed, or `None`
    /// if nothing was there.
    pub fn remove_cuda(&self) -> Result<Option<u64>, RuntimesDirError> {
        let folders =
            || [CUDA.to_owned(), format!(".{CUDA}")].into_iter().flat_map(|prefix| self.folders(&prefix));
        if folders().next().is_none() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        // Listed again: an installation may have ended before the lock was free.
        let mut bytes = 0;
        for folder in folders() {
            bytes += bytes_under(&folder);
            fs::remove_dir_all(&folder).map_err(|source| RuntimesDirError::Disk { path: folder, source })?;
        }
        Ok(Some(bytes))
    }

    fn folders(&self, prefix: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().filter_map(Result::ok);
        let is_folder = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        named.filter(is_folder).map(|entry| entry.path()).collect()
    }
}

impl InstalledRuntime {
    fn open(path: &Path) -> Option<Self> {
        let text = fs::read(path.join(MANIFEST)).ok()?;
        let manifest = serde_json::from_slice(&text).ok()?;
        Some(Self { path: path.to_owned(), manifest })
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The path of ONNX Runtime's own library.
    pub fn library(&self) -> Option<PathBuf> {
        let file = self.files().find(|file| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            name.starts_with("libonnxruntime.so.")
        })?;
        Some(self.path.join(&file.path))
    }

    /// The paths of all its files.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files().map(|file| self.path.join(&file.path))
    }

    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// The files that are missing or have the wrong size.
    pub fn damaged(&self) -> Vec<String> {
        let is_right = |file: &InstalledFile| {
            fs::metadata(self.path.join(&file.path))
                .is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.bytes)
        };
        self.files().filter(|file| !is_right(file)).map(|file| file.path.clone()).collect()
    }

    pub fn is_whole(&self) -> bool {
        self.library().is_some() && self.damaged().is_empty()
    }

    fn files(&self) -> impl Iterator<Item = &InstalledFile> {
        self.manifest.packages.iter().flat_map(|package| &package.files)
    }
}

impl RuntimeManifest {
    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::write(folder.join(MANIFEST), serde_json::to_vec_pretty(self)?)
    }
}

/// The bytes of all files under `folder`; links are not followed.
pub(super) fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_under(&entry.path()) } else { metadata.len() })
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a runtime with one library into the folder.
    fn write_runtime(runtimes: &RuntimesDir, version: &str) -> PathBuf {
        let folder = runtimes.cuda_folder(version);
        let path = format!("onnxruntime/capi/libonnxruntime.so.{version}");
        fs::create_dir_all(folder.join("onnxruntime/capi")).unwrap();
        fs::write(folder.join(&path), b"library").unwrap();
        let file = InstalledFile { path, bytes: 7 };
        let package = InstalledPackage {
            name: "onnxruntime-gpu".to_owned(),
            version: version.to_owned(),
            sha256: "0".repeat(64),
            files: vec![file],
        };
        let manifest = RuntimeManifest { version: version.to_owned(), packages: vec![package] };
        manifest.write(&folder).unwrap();
        folder
    }

    #[test]
    fn the_pinned_version_comes_first_and_a_damaged_one_is_not_used() {
        let data = tempfile::tempdir().unwrap();
        let runtimes = RuntimesDir::in_data_dir(data.path());
        assert_eq!(runtimes.cuda(), None);
        write_runtime(&runtimes, "1.20.0");
        let other = write_runtime(&runtimes, "1.40.0");
        assert_eq!(runtimes.cuda().unwrap().path, other);
        let pinned = write_runtime(&runtimes, CUDA_VERSION);
        assert_eq!(runtimes.cuda().unwrap().path, pinned);
        fs::write(runtimes.cuda().unwrap().library().unwrap(), b"cut").unwrap();
        assert_eq!(runtimes.cuda().unwrap().path, other);
        let damaged = runtimes.list().into_iter().find(|runtime| runtime.path == pinned).unwrap();
        assert_eq!(damaged.damaged(), [format!("onnxruntime/capi/libonnxruntime.so.{CUDA_VERSION}")]);
    }

    #[test]
    fn removing_leaves_no_runtime_and_no_unfinished_one() {
        let data = tempfile::tempdir().unwrap();
        let runtimes = RuntimesDir::in_data_dir(data.path());
        assert_eq!(runtimes.remove_cuda().unwrap(), None);
        write_runtime(&runtimes, CUDA_VERSION);
        let wheels = runtimes.staging(CUDA_VERSION).join("wheels");
        fs::create_dir_all(&wheels).unwrap();
        fs::write(wheels.join("half"), b"12345").unwrap();
        let replaced = runtimes.staging(CUDA_VERSION).join(REPLACED);
        fs::create_dir_all(&replaced).unwrap();
        fs::write(replaced.join("library"), b"1234567").unwrap();
        assert_eq!(runtimes.unfinished_bytes(), 12);
        assert!(runtimes.remove_cuda().unwrap().unwrap() > 19);
        let left: Vec<_> =
            fs::read_dir(runtimes.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK]);
    }

    #[test]
    fn nothing_is_removed_while_another_process_installs() {
        let data = tempfile::tempdir().unwrap();
        let runtimes = RuntimesDir::in_data_dir(data.path());
        write_runtime(&runtimes, CUDA_VERSION);
        let other = runtimes.lock().unwrap();
        assert!(matches!(runtimes.remove_cuda(), Err(RuntimesDirError::Busy)));
        assert!(runtimes.cuda().is_some());
        drop(other);
        assert!(runtimes.remove_cuda().unwrap().is_some());
    }
}
