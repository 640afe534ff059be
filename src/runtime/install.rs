//! Installs the CUDA runtime: downloads, checks and unpacks each pinned wheel, then renames the complete folder.
//!
//! Unpacked packages are kept when a later one fails, and the next run does not download them again. It does download an
//! incomplete wheel from its beginning, as pip always does.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use super::installed::{
    InstalledFile, InstalledPackage, InstalledRuntime, REPLACED, RuntimeManifest, RuntimesDir,
    RuntimesDirError,
};
use super::packages::{CUDA_PACKAGES, CUDA_VERSION, Package};
use super::pip::{Pip, PipError, wheel_in};
use crate::private_dir;

/// Receives the progress of an installation.
pub trait InstallProgress {
    /// Called before the first download, if anything must be installed and the disk has room for it.
    fn begin(&self);
    /// Called with the bytes of wheels downloaded so far, out of [`download_bytes`].
    fn position(&self, bytes: u64);
    /// Called when a package is unpacked. `is_new` is false if an earlier run unpacked it.
    fn package(&self, package: &Package, is_new: bool);
    /// Whether the user wants the installation to stop.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// The runtime after a successful installation.
#[derive(Debug)]
pub enum Installed {
    New(InstalledRuntime),
    /// It was installed before.
    Before(InstalledRuntime),
}

/// Why the runtime could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(
        "there is no CUDA runtime to install for {0}: only Linux on x86-64 has one. Elsewhere, set STABLEHAND_ORT_DYLIB \
         to the library of an ONNX Runtime built for CUDA"
    )]
    Platform(String),
    #[error(
        "pip is needed to download the CUDA runtime, and neither `python3 -m pip` nor `pip` works: install Python's pip \
         (on Debian and Ubuntu: apt install python3-pip) and run the command again"
    )]
    NoPip,
    #[error(
        "pip could not download {package} {version} ({reason}): check the network and run the command again; packages \
         that are complete are kept"
    )]
    Download { package: &'static str, version: &'static str, reason: String },
    #[error(
        "the package index gives other bytes for {package} {version} than the pinned ones: do not use them, and check \
         which index pip is set to (`pip config list`)"
    )]
    OtherBytes { package: &'static str, version: &'static str },
    #[error(
        "stopped: complete packages are kept; run the command again to go on, or `stablehand runtime rm cuda` to remove them"
    )]
    Stopped,
    #[error("the wheel of {package} {version} cannot be unpacked: {reason}")]
    Wheel { package: &'static str, version: &'static str, reason: String },
    #[error(
        "the CUDA runtime needs {needed} in {dir}, and {free} are free: make room, or name another data folder with \
         --data-dir", needed = ByteSize(*.needed).display().si(), dir = .dir.display(), free = ByteSize(*.free).display().si()
    )]
    Room { needed: u64, free: u64, dir: PathBuf },
    #[error(transparent)]
    Folder(#[from] RuntimesDirError),
}

/// Bytes of the disk that an installation leaves free.
const RESERVE: u64 = 64 << 20;

/// The bytes to download for all packages.
pub fn download_bytes() -> u64 {
    CUDA_PACKAGES.iter().map(|package| package.wheel_bytes).sum()
}

/// The bytes that the installed runtime takes on the disk.
pub fn installed_bytes() -> u64 {
    CUDA_PACKAGES.iter().map(|package| package.unpacked_bytes).sum()
}

/// Installs the pinned CUDA runtime, unless it is installed already.
pub fn install_cuda(
    runtimes: &RuntimesDir,
    progress: &dyn InstallProgress,
) -> Result<Installed, InstallError> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        return Err(InstallError::Platform(format!("this system ({os} on {arch})")));
    }
    Installation { runtimes, version: CUDA_VERSION, packages: &CUDA_PACKAGES, progress }.run(Pip::find)
}

struct Installation<'a> {
    runtimes: &'a RuntimesDir,
    version: &'static str,
    packages: &'a [Package],
    progress: &'a dyn InstallProgress,
}

impl Installation<'_> {
    fn run(&self, find_pip: impl FnOnce() -> Option<Pip>) -> Result<Installed, InstallError> {
        let target = self.runtimes.cuda_folder(self.version);
        let staging = self.runtimes.staging(self.version);
        let installed = || {
            let mut all = self.runtimes.list().into_iter();
            all.find(|runtime| runtime.path == target && runtime.is_whole())
        };
        if let Some(runtime) = installed().filter(|_| !staging.exists()) {
            return Ok(Installed::Before(runtime));
        }
        let pip = find_pip();
        if pip.is_none() && installed().is_none() {
            // Before the lock, which writes a file.
            return Err(InstallError::NoPip);
        }
        let _lock = self.runtimes.lock()?;
        // Another process may have completed the installation meanwhile, or stopped before it had tidied up.
        if let Some(runtime) = installed() {
            remove_if_there(&staging)?;
            return Ok(Installed::Before(runtime));
        }
        let pip = pip.ok_or(InstallError::NoPip)?;
        private_dir::create(&staging).map_err(|error| disk(&staging, error))?;
        remove_if_there(&staging.join(REPLACED))?;
        self.check_room(&staging)?;
        self.progress.begin();
        let mut packages = Vec::with_capacity(self.packages.len());
        let mut done = 0;
        for package in self.packages {
            if self.progress.is_stopped() {
                return Err(InstallError::Stopped);
            }
            let (unpacked, is_new) = match unpacked(&staging, package) {
                Some(unpacked) => (unpacked, false),
                None => (self.fetch(&pip, package, &staging, done)?, true),
            };
            packages.push(unpacked);
            done += package.wheel_bytes;
            self.progress.position(done);
            self.progress.package(package, is_new);
        }
        let manifest = RuntimeManifest { version: self.version.to_owned(), packages };
        publish(&manifest, &staging, &target).map_err(|error| disk(&target, error))?;
        Ok(Installed::New(InstalledRuntime { path: target, manifest }))
    }

    /// Downloads the package's wheel, unless the staging folder has it, and unpacks it there.
    fn fetch(
        &self,
        pip: &Pip,
        package: &Package,
        staging: &Path,
        done: u64,
    ) -> Result<InstalledPackage, InstallError> {
        let (name, version) = (package.name, package.version);
        let is_pinned = |wheel: &PathBuf| sha256_of(wheel).is_ok_and(|digest| digest == package.sha256);
        let wheel = match wheel_in(&staging.join("wheels"), package).filter(is_pinned) {
            Some(wheel) => wheel,
            None => self.download(pip, package, staging, done)?,
        };
        let files = unpack(&wheel, package, &staging.join("files"))
            .map_err(|reason| InstallError::Wheel { package: name, version, reason })?;
        let unpacked = InstalledPackage {
            name: name.to_owned(),
            version: version.to_owned(),
            sha256: package.sha256.to_owned(),
            files,
        };
        remember(staging, &unpacked).map_err(|error| disk(staging, error))?;
        let _ = fs::remove_file(wheel);
        Ok(unpacked)
    }

    /// Downloads the package's wheel and checks its hash.
    fn download(
        &self,
        pip: &Pip,
        package: &Package,
        staging: &Path,
        done: u64,
    ) -> Result<PathBuf, InstallError> {
        let (name, version) = (package.name, package.version);
        // pip copies the wheel and then deletes its temporary file, but the bar does not go back.
        let highest = Cell::new(0);
        let watch = |bytes: u64| {
            highest.set(highest.get().max(bytes.min(package.wheel_bytes)));
            self.progress.position(done + highest.get());
            match self.progress.is_stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let wheel = pip.download(package, staging, &watch).map_err(|error| match error {
            PipError::Stopped => InstallError::Stopped,
            PipError::OtherBytes => InstallError::OtherBytes { package: name, version },
            PipError::Refused(reason) => InstallError::Download { package: name, version, reason },
            PipError::Io(error) => disk(staging, error),
        })?;
        if sha256_of(&wheel).is_ok_and(|digest| digest == package.sha256) {
            return Ok(wheel);
        }
        let _ = fs::remove_file(&wheel);
        Err(InstallError::OtherBytes { package: name, version })
    }

    /// Requires room for the missing packages and for two copies of the largest wheel: pip copies it from its temporary
    /// folder.
    fn check_room(&self, staging: &Path) -> Result<(), InstallError> {
        let missing: Vec<_> =
            self.packages.iter().filter(|package| unpacked(staging, package).is_none()).collect();
        let Some(largest) = missing.iter().map(|package| package.wheel_bytes).max() else { return Ok(()) };
        let unpacked: u64 = missing.iter().map(|package| package.unpacked_bytes).sum();
        let needed = unpacked + 2 * largest + RESERVE;
        match fs4::available_space(staging) {
            Ok(free) if free < needed => {
                Err(InstallError::Room { needed, free, dir: self.runtimes.path().to_owned() })
            }
            // If the system does not know, an installation on a full disk fails later.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Removes the folder, if it exists.
fn remove_if_there(folder: &Path) -> Result<(), InstallError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(disk(folder, error)),
        _ => Ok(()),
    }
}

/// Unpacks the package's needed files from its wheel into `folder`.
fn unpack(wheel: &Path, package: &Package, folder: &Path) -> Result<Vec<InstalledFile>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let file = File::open(wheel).map_err(|error| text(&error))?;
    let mut archive = ZipArchive::new(file).map_err(|error| text(&error))?;
    let licence = |path: &&'static str| {
        let name = path.rsplit('/').next().unwrap_or(path);
        (*path, format!("licences/{}/{name}", package.name))
    };
    let places = package.files.iter().map(|path| (*path, (*path).to_owned()));
    let mut files = Vec::new();
    for (path, place) in places.chain(package.licence_files.iter().map(licence)) {
        let mut entry = archive.by_name(path).map_err(|error| format!("{path}: {error}"))?;
        let target = folder.join(&place);
        let written = (|| {
            fs::create_dir_all(target.parent().unwrap_or(folder))?;
            let mut file = File::create(&target)?;
            let written = io::copy(&mut entry, &mut file)?;
            file.sync_all()?;
            Ok(written)
        })();
        let bytes = written.map_err(|error: io::Error| format!("{path}: {error}"))?;
        files.push(InstalledFile { path: place, bytes });
    }
    Ok(files)
}

/// The file that records which files of a package are unpacked.
fn record(staging: &Path, name: &str) -> PathBuf {
    staging.join("unpacked").join(format!("{name}.json"))
}

fn remember(staging: &Path, package: &InstalledPackage) -> io::Result<()> {
    let path = record(staging, &package.name);
    fs::create_dir_all(staging.join("unpacked"))?;
    fs::write(path, serde_json::to_vec(package)?)
}

/// The package, if an earlier run unpacked it and its files are still there.
fn unpacked(staging: &Path, package: &Package) -> Option<InstalledPackage> {
    let text = fs::read(record(staging, package.name)).ok()?;
    let found: InstalledPackage = serde_json::from_slice(&text).ok()?;
    let is_there = |file: &InstalledFile| {
        fs::metadata(staging.join("files").join(&file.path))
            .is_ok_and(|metadata| metadata.len() == file.bytes)
    };
    (found.sha256 == package.sha256 && found.files.iter().all(is_there)).then_some(found)
}

/// Renames the complete files to their final folder, in place of a damaged runtime if there is one.
fn publish(manifest: &RuntimeManifest, staging: &Path, target: &Path) -> io::Result<()> {
    let files = staging.join("files");
    manifest.write(&files)?;
    if target.exists() {
        fs::rename(target, staging.join(REPLACED))?;
    }
    fs::rename(&files, target)?;
    File::open(target.parent().unwrap_or(target))?.sync_all()?;
    fs::remove_dir_all(staging)
}

fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

fn disk(path: &Path, source: io::Error) -> InstallError {
    RuntimesDirError::Disk { path: path.to_owned(), source }.into()
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
