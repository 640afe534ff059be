//! Downloads one pinned wheel with pip.
//!
//! pip knows the user's package index, mirrors, proxies and certificates, so this program contains no address. Versions of
//! pip report progress in different ways. Progress is therefore measured as the bytes in pip's temporary folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::installed::bytes_under;
use super::packages::Package;

/// The command that runs pip.
#[derive(Debug, Clone)]
pub struct Pip {
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// Why pip downloaded no wheel.
#[derive(Debug)]
pub(super) enum PipError {
    /// The index has other bytes under this name and version.
    OtherBytes,
    /// Another reason, in pip's words.
    Refused(String),
    /// The user stopped it.
    Stopped,
    Io(io::Error),
}

/// The platform tags that the pinned wheels may have.
const PLATFORMS: [&str; 3] = ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux2014_x86_64"];
/// The Python version of the pinned wheel of onnxruntime-gpu. The wheels for other versions contain the same libraries.
const PYTHON: &str = "3.12";
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

impl Pip {
    /// Finds a pip that works: first as Python's module, then as a program.
    pub fn find() -> Option<Self> {
        const MODULE: &[&str] = &["-m", "pip"];
        [("python3", MODULE), ("python", MODULE), ("pip3", &[]), ("pip", &[])]
            .into_iter()
            .map(|(program, arguments)| Self { program: program.into(), arguments })
            .find(Self::answers)
    }

    #[cfg(test)]
    pub(super) fn at(program: &Path) -> Self {
        Self { program: program.to_owned(), arguments: &[] }
    }

    fn answers(&self) -> bool {
        let mut command = self.command();
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments).stdin(Stdio::null());
        command
    }

    /// Downloads the package's wheel into the folder `wheels` of `staging`, and calls `watch` with the bytes so far. It says
    /// whether to go on.
    pub(super) fn download(
        &self,
        package: &Package,
        staging: &Path,
        watch: &dyn Fn(u64) -> ControlFlow<()>,
    ) -> Result<PathBuf, PipError> {
        let (wheels, temporary) = (staging.join("wheels"), staging.join("tmp"));
        // pip cannot use the incomplete wheel of an earlier run.
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary)?;
        fs::create_dir_all(&wheels)?;
        let requirements = staging.join("requirements.txt");
        let pinned = format!("{}=={} --hash=sha256:{}\n", package.name, package.version, package.sha256);
        fs::write(&requirements, pinned)?;
        let log = staging.join("pip.log");

        let mut command = self.command();
        command
            .args(["download", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
            .args(["--progress-bar", "off", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            .args(["--implementation", "cp", "--python-version", PYTHON])
            .args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]))
            .arg("--dest")
            .arg(&wheels)
            .arg("--requirement")
            .arg(&requirements)
            .env("TMPDIR", &temporary)
            // From version 25.1 on, pip resumes a file after a broken connection. Older versions ignore the variable.
            .env("PIP_RESUME_RETRIES", "20")
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let status = watched(&mut command, || watch(bytes_under(&temporary)))?;
        let Some(status) = status else {
            let _ = fs::remove_dir_all(&temporary);
            return Err(PipError::Stopped);
        };
        let said = fs::read(&log).unwrap_or_default();
        let _ = fs::remove_dir_all(&temporary);
        match wheel_in(&wheels, package).filter(|_| status.success()) {
            Some(wheel) => Ok(wheel),
            None => Err(refusal(&String::from_utf8_lossy(&said))),
        }
    }
}

/// Finds the package's wheel in a folder of wheels.
pub(super) fn wheel_in(wheels: &Path, package: &Package) -> Option<PathBuf> {
    let prefix = package.file_prefix();
    let paths = fs::read_dir(wheels).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    paths.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&prefix) && path.extension() == Some(OsStr::new("whl"))
    })
}

/// Runs a command to its end, and calls `look` again and again meanwhile. Ends the command when `look` says so, and returns
/// no status then.
fn watched(command: &mut Command, look: impl Fn() -> ControlFlow<()>) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    loop {
        let status = child.try_wait()?;
        // A terminal sends Ctrl-C to pip as well, so pip may have ended because of it.
        if look().is_break() {
            if status.is_none() {
                child.kill()?;
                child.wait()?;
            }
            return Ok(None);
        }
        if status.is_some() {
            return Ok(status);
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}

/// Reads from pip's messages why it failed.
fn refusal(said: &str) -> PipError {
    if said.contains("DO NOT MATCH THE HASHES") {
        return PipError::OtherBytes;
    }
    let reason = said.lines().map(str::trim).rfind(|line| line.starts_with("ERROR:"));
    let last = || said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let reason = reason.map(|line| line.trim_start_matches("ERROR:").trim()).or_else(last);
    PipError::Refused(reason.unwrap_or("it gave no reason").trim_end_matches('.').to_owned())
}

impl From<io::Error> for PipError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_s_last_error_is_its_reason() {
        let reason = |said: &str| match refusal(said) {
            PipError::Refused(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            reason(
                "WARNING: Retrying\nERROR: Could not find a version\nERROR: No matching distribution found for x.\n"
            ),
            "No matching distribution found for x"
        );
        assert_eq!(reason("Traceback:\n  File\nOSError: no space left\n\n"), "OSError: no space left");
        assert_eq!(reason(""), "it gave no reason");
        let mismatch =
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you …\n    Got 00";
        assert!(matches!(refusal(mismatch), PipError::OtherBytes));
    }
}
