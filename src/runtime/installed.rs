//! The folder of installed runtimes: what is there, whether it is whole, and removing it.
//!
//! A runtime is a folder such as `cuda-1.31.1`, laid out as pip lays out `site-packages`, with a `runtime.json` that lists
//! its files. It gets its name once it is whole; [`install`](super::install) gathers it in a hidden folder beside it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::packages::CUDA_VERSION;

/// The folder `runtimes` of a data folder. It need not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimesDir {
    path: PathBuf,
}

/// What a runtime's `runtime.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeManifest {
    /// Of onnxruntime-gpu.
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

/// A runtime in its folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledRuntime {
    pub path: PathBuf,
    pub manifest: RuntimeManifest,
}

const CUDA: &str = "cuda-";
const MANIFEST: &str = "runtime.json";

impl RuntimesDir {
    pub fn in_data_dir(data_dir: &Path) -> Self {
        Self { path: data_dir.join("runtimes") }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a CUDA runtime of that version is, or will be.
    pub(super) fn cuda_folder(&self, version: &str) -> PathBuf {
        self.path.join(format!("{CUDA}{version}"))
    }

    /// Where it is gathered.
    pub(super) fn staging(&self, version: &str) -> PathBuf {
        self.path.join(format!(".{CUDA}{version}.part"))
    }

    /// The runtimes in the folder, whole or not, by name.
    pub fn list(&self) -> Vec<InstalledRuntime> {
        let mut found: Vec<_> =
            self.folders(CUDA).into_iter().filter_map(|path| InstalledRuntime::open(&path)).collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// The CUDA runtime to use: of the pinned version, else another that is whole.
    pub fn cuda(&self) -> Option<InstalledRuntime> {
        let mut whole: Vec<_> = self.list().into_iter().filter(InstalledRuntime::is_whole).collect();
        let pinned = whole.iter().position(|runtime| runtime.manifest.version == CUDA_VERSION);
        match pinned {
            Some(index) => Some(whole.swap_remove(index)),
            None => whole.pop(),
        }
    }

    /// Bytes that an installation which did not end has for the next one.
    pub fn unfinished_bytes(&self) -> u64 {
        let folders = self.folders(&format!(".{CUDA}")).into_iter();
        let kept = folders.flat_map(|folder| [folder.join("files"), folder.join("wheels")]);
        kept.map(|folder| bytes_under(&folder)).sum()
    }

    /// Removes all CUDA runtimes and what is left of installations. Returns the bytes, or none if there was nothing.
    pub fn remove_cuda(&self) -> io::Result<Option<u64>> {
        let mut folders = self.folders(CUDA);
        folders.extend(self.folders(&format!(".{CUDA}")));
        if folders.is_empty() {
            return Ok(None);
        }
        let mut bytes = 0;
        for folder in folders {
            bytes += bytes_under(&folder);
            fs::remove_dir_all(folder)?;
        }
        // Fails where something else is in it.
        let _ = fs::remove_dir(&self.path);
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

    /// ONNX Runtime's own library.
    pub fn library(&self) -> Option<PathBuf> {
        let file = self.files().find(|file| {
            let name = file.path.rsplit('/').next().unwrap_or_default();
            name.starts_with("libonnxruntime.so.")
        })?;
        Some(self.path.join(&file.path))
    }

    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// The files that are gone, or have another size.
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

    /// Lays a runtime of one library into the folder.
    fn lay(runtimes: &RuntimesDir, version: &str) -> PathBuf {
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
        lay(&runtimes, "1.20.0");
        let other = lay(&runtimes, "1.40.0");
        assert_eq!(runtimes.cuda().unwrap().path, other);
        let pinned = lay(&runtimes, CUDA_VERSION);
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
        lay(&runtimes, CUDA_VERSION);
        let wheels = runtimes.staging(CUDA_VERSION).join("wheels");
        fs::create_dir_all(&wheels).unwrap();
        fs::write(wheels.join("half"), b"12345").unwrap();
        assert_eq!(runtimes.unfinished_bytes(), 5);
        assert!(runtimes.remove_cuda().unwrap().unwrap() > 12);
        assert!(runtimes.list().is_empty() && !runtimes.path().exists());
    }
}
