//! Installing the CUDA runtime: each pinned wheel is downloaded, checked and unpacked, and then the folder gets its name.
//!
//! A package that is unpacked stays so when a later one fails, and is not downloaded again. Half a wheel is: pip starts a
//! file anew.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use sha2::{Digest as _, Sha256};
use zip::ZipArchive;

use super::installed::{InstalledFile, InstalledPackage, InstalledRuntime, RuntimeManifest, RuntimesDir};
use super::packages::{CUDA_PACKAGES, CUDA_VERSION, Package};
use super::pip::{Pip, PipError, wheel_in};

/// Told how an installation goes.
pub trait InstallProgress {
    /// There is something to install, and room for it.
    fn begin(&self);
    /// Bytes of wheels by now, of all that are needed.
    fn position(&self, bytes: u64);
    /// A package is unpacked, now or in an earlier run.
    fn package(&self, package: &Package, is_new: bool);
}

/// What an installation came to.
#[derive(Debug)]
pub enum Installed {
    New(InstalledRuntime),
    /// It was there already.
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
    #[error("the wheel of {package} {version} cannot be unpacked: {reason}")]
    Wheel { package: &'static str, version: &'static str, reason: String },
    #[error(
        "the CUDA runtime needs {needed} in {dir}, and {free} are free: make room, or name another data folder with \
         --data-dir", needed = ByteSize(*.needed).display().si(), dir = .dir.display(), free = ByteSize(*.free).display().si()
    )]
    Room { needed: u64, free: u64, dir: PathBuf },
    #[error("another stablehand is installing the CUDA runtime: wait until it is done")]
    Busy,
    #[error("cannot write to {path}: {source}", path = .path.display())]
    Disk { path: PathBuf, source: io::Error },
}

/// Left on the disk for others.
const RESERVE: u64 = 64 << 20;

/// Bytes to download, of all packages.
pub fn download_bytes() -> u64 {
    CUDA_PACKAGES.iter().map(|package| package.wheel_bytes).sum()
}

/// Bytes on the disk once it is installed.
pub fn installed_bytes() -> u64 {
    CUDA_PACKAGES.iter().map(|package| package.unpacked_bytes).sum()
}

/// Installs the pinned CUDA runtime unless it is there.
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
        let there = || {
            let mut all = self.runtimes.list().into_iter();
            all.find(|runtime| runtime.path == target && runtime.is_whole())
        };
        if let Some(runtime) = there() {
            return Ok(Installed::Before(runtime));
        }
        let pip = find_pip().ok_or(InstallError::NoPip)?;
        let staging = self.runtimes.staging(self.version);
        create_private(&staging).map_err(|error| disk(&staging, error))?;
        let _lock = lock(&staging)?;
        self.check_room(&staging)?;
        self.progress.begin();
        let mut packages = Vec::with_capacity(self.packages.len());
        let mut done = 0;
        for package in self.packages {
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

    /// The package unpacked into the staging folder, by way of its wheel.
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

    /// The package's wheel, its bytes checked.
    fn download(
        &self,
        pip: &Pip,
        package: &Package,
        staging: &Path,
        done: u64,
    ) -> Result<PathBuf, InstallError> {
        let (name, version) = (package.name, package.version);
        let watch = |bytes: u64| self.progress.position(done + bytes.min(package.wheel_bytes));
        let wheel = pip.download(package, staging, &watch).map_err(|error| match error {
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

    /// What is still to come, and twice the largest wheel: pip copies it from its temporary folder.
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
            // Where the system does not say, the disk will.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Makes the folder and those above it, readable by their owner only: the server's data folder may be one of them.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn lock(staging: &Path) -> Result<File, InstallError> {
    let path = staging.join("lock");
    let file = File::create(&path).map_err(|error| disk(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(InstallError::Busy),
        Err(TryLockError::Error(error)) => Err(disk(&path, error)),
    }
}

/// Takes the package's files out of its wheel, each into its own place under `folder`.
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

/// Where it is written down that a package is unpacked.
fn record(staging: &Path, name: &str) -> PathBuf {
    staging.join("unpacked").join(format!("{name}.json"))
}

fn remember(staging: &Path, package: &InstalledPackage) -> io::Result<()> {
    let path = record(staging, &package.name);
    fs::create_dir_all(staging.join("unpacked"))?;
    fs::write(path, serde_json::to_vec(package)?)
}

/// The package as an earlier run unpacked it.
fn unpacked(staging: &Path, package: &Package) -> Option<InstalledPackage> {
    let text = fs::read(record(staging, package.name)).ok()?;
    let found: InstalledPackage = serde_json::from_slice(&text).ok()?;
    let is_there = |file: &InstalledFile| {
        fs::metadata(staging.join("files").join(&file.path))
            .is_ok_and(|metadata| metadata.len() == file.bytes)
    };
    (found.sha256 == package.sha256 && found.files.iter().all(is_there)).then_some(found)
}

/// Gives the gathered files their name, in place of a damaged runtime if there is one.
fn publish(manifest: &RuntimeManifest, staging: &Path, target: &Path) -> io::Result<()> {
    let files = staging.join("files");
    manifest.write(&files)?;
    if target.exists() {
        fs::rename(target, staging.join("replaced"))?;
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
    InstallError::Disk { path: path.to_owned(), source }
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
