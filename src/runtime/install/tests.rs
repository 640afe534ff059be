//! Installs small wheels with a script in pip's place.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::runtime::packages::Licence;

/// A data folder, a folder of wheels in place of an index, and a pip that copies them.
struct Fixture {
    data: TempDir,
    index: TempDir,
    packages: Vec<Package>,
}

/// Logs the package that it is asked for, then copies that package's wheel.
const PIP: &str = r#"#!/bin/sh
index=$(dirname "$0")
while [ $# -gt 0 ]; do
    case $1 in
    --dest) dest=$2 ;;
    --requirement) requirement=$2 ;;
    esac
    shift
done
name=$(sed 's/==.*//' "$requirement" | tr - _)
echo "$name" >>"$index/asked"
if [ -e "$index/$name.error" ]; then cat "$index/$name.error" >&2; exit 1; fi
if [ -e "$index/slow" ]; then echo 1234567 >"$TMPDIR/part"; sleep 0.3; rm "$TMPDIR/part"; sleep 0.3; fi
cp "$index/$name"-*.whl "$dest"
"#;

impl Fixture {
    fn new() -> Self {
        let index = tempfile::tempdir().unwrap();
        let packages = vec![
            package(index.path(), "nvidia-small", &["nvidia/cu13/lib/libsmall.so.13"]),
            package(index.path(), "onnxruntime-gpu", &["onnxruntime/capi/libonnxruntime.so.1.0.0"]),
        ];
        let pip = index.path().join("pip");
        fs::write(&pip, PIP).unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        Self { data: tempfile::tempdir().unwrap(), index, packages }
    }

    fn runtimes(&self) -> RuntimesDir {
        RuntimesDir::in_data_dir(self.data.path())
    }

    fn install(&self) -> Result<Installed, InstallError> {
        let progress = RecordedProgress::default();
        let runtimes = self.runtimes();
        let installation = Installation {
            runtimes: &runtimes,
            version: "1.0.0",
            packages: &self.packages,
            progress: &progress,
        };
        let outcome = installation.run(|| Some(Pip::at(&self.index.path().join("pip"))));
        if outcome.is_ok() && !progress.0.borrow().is_empty() {
            let all: u64 = self.packages.iter().map(|package| package.wheel_bytes).sum();
            assert_eq!(progress.0.borrow().last(), Some(&all), "the bar ends full");
            assert!(progress.0.borrow().is_sorted(), "the bar does not go back: {:?}", progress.0.borrow());
            if self.index.path().join("slow").exists() {
                // The looks after the temporary file was gone count as well.
                assert!(progress.0.borrow().iter().filter(|position| **position == 8).count() > 3);
            }
        }
        outcome
    }

    /// The packages that pip was asked for, one for each call.
    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.index.path().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn says(&self, name: &str, error: &str) {
        fs::write(self.index.path().join(format!("{name}.error")), error).unwrap();
    }

    fn says_no_more(&self, name: &str) {
        fs::remove_file(self.index.path().join(format!("{name}.error"))).unwrap();
    }
}

/// Records every position of the progress bar.
#[derive(Default)]
struct RecordedProgress(RefCell<Vec<u64>>);

impl InstallProgress for RecordedProgress {
    fn begin(&self) {}

    fn position(&self, bytes: u64) {
        self.0.borrow_mut().push(bytes);
    }

    fn package(&self, _: &Package, _: bool) {}
}

/// Writes a wheel into the index. It also holds a file that is not needed.
fn package(index: &Path, name: &'static str, files: &'static [&'static str]) -> Package {
    let path = index.join(format!("{}-1.0.0-py3-none-any.whl", name.replace('-', "_")));
    let mut wheel = ZipWriter::new(File::create(&path).unwrap());
    for entry in files.iter().chain(&["LICENSE", "other.py"]) {
        wheel.start_file(*entry, SimpleFileOptions::default()).unwrap();
        wheel.write_all(format!("{name}: {entry}").as_bytes()).unwrap();
    }
    wheel.finish().unwrap();
    Package {
        name,
        version: "1.0.0",
        sha256: sha256_of(&path).unwrap().leak(),
        wheel_bytes: fs::metadata(&path).unwrap().len(),
        unpacked_bytes: 100,
        licence: Licence::Nvidia,
        files,
        licence_files: &["LICENSE"],
    }
}

#[test]
fn a_runtime_is_whole_or_not_there() {
    let fixture = Fixture::new();
    let Ok(Installed::New(runtime)) = fixture.install() else { panic!("it is installed") };
    assert_eq!(runtime.path, fixture.data.path().join("runtimes/cuda-1.0.0"));
    assert_eq!(fixture.runtimes().cuda(), Some(runtime.clone()));
    let text = |path: &str| fs::read_to_string(runtime.path.join(path)).unwrap();
    assert_eq!(text("nvidia/cu13/lib/libsmall.so.13"), "nvidia-small: nvidia/cu13/lib/libsmall.so.13");
    assert_eq!(text("licences/onnxruntime-gpu/LICENSE"), "onnxruntime-gpu: LICENSE");
    assert_eq!(runtime.library().unwrap(), runtime.path.join("onnxruntime/capi/libonnxruntime.so.1.0.0"));
    assert!(!runtime.path.join("other.py").exists(), "only what is needed is unpacked");
    let mode = fs::metadata(fixture.runtimes().path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users see nothing of a new data folder");
    let entries = fs::read_dir(fixture.runtimes().path()).unwrap();
    let mut left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".lock", "cuda-1.0.0"], "no wheel and no staging folder is left");

    assert!(matches!(fixture.install(), Ok(Installed::Before(_))));
    assert_eq!(fixture.asked().len(), 2, "nothing is downloaded twice");
}

#[test]
fn the_bar_does_not_go_back_while_pip_moves_a_wheel() {
    let fixture = Fixture::new();
    fs::write(fixture.index.path().join("slow"), "").unwrap();
    assert!(matches!(fixture.install(), Ok(Installed::New(_))));
}

#[test]
fn a_stopped_installation_keeps_what_is_complete() {
    let fixture = Fixture::new();
    let (runtimes, stopped) = (fixture.runtimes(), StoppedAfterOne::default());
    let installation = Installation {
        runtimes: &runtimes,
        version: "1.0.0",
        packages: &fixture.packages,
        progress: &stopped,
    };
    let error = installation.run(|| Some(Pip::at(&fixture.index.path().join("pip")))).unwrap_err();
    assert!(matches!(error, InstallError::Stopped), "{error}");
    assert!(matches!(fixture.install(), Ok(Installed::New(_))));
    assert_eq!(fixture.asked(), ["nvidia_small", "onnxruntime_gpu"]);
}

/// Stops when the first package is unpacked.
#[derive(Default)]
struct StoppedAfterOne(Cell<bool>);

impl InstallProgress for StoppedAfterOne {
    fn begin(&self) {}

    fn position(&self, _: u64) {}

    fn package(&self, _: &Package, _: bool) {
        self.0.set(true);
    }

    fn is_stopped(&self) -> bool {
        self.0.get()
    }
}

#[test]
fn what_is_unpacked_is_not_downloaded_again() {
    let fixture = Fixture::new();
    fixture.says("onnxruntime_gpu", "ERROR: the network is gone");
    let error = fixture.install().unwrap_err();
    assert!(error.to_string().contains("onnxruntime-gpu 1.0.0 (the network is gone)"), "{error}");
    assert_eq!(fixture.runtimes().list(), [], "half a runtime has no name");
    assert!(fixture.runtimes().unfinished_bytes() > 0);

    fixture.says_no_more("onnxruntime_gpu");
    fixture.install().unwrap();
    assert_eq!(fixture.asked(), ["nvidia_small", "onnxruntime_gpu", "onnxruntime_gpu"]);
    assert!(fixture.runtimes().cuda().is_some_and(|runtime| runtime.manifest.packages.len() == 2));
}

#[test]
fn other_bytes_than_the_pinned_ones_are_never_unpacked() {
    let mut fixture = Fixture::new();
    fixture.packages[0].sha256 = "0000000000000000000000000000000000000000000000000000000000000000";
    // pip did not notice.
    assert!(matches!(fixture.install(), Err(InstallError::OtherBytes { package: "nvidia-small", .. })));
    let staging = fixture.runtimes().staging("1.0.0");
    assert!(!staging.join("files").exists() && fs::read_dir(staging.join("wheels")).unwrap().count() == 0);
    // It did.
    fixture.says("nvidia_small", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.");
    assert!(matches!(fixture.install(), Err(InstallError::OtherBytes { package: "nvidia-small", .. })));
}

#[test]
fn a_damaged_runtime_is_replaced() {
    let fixture = Fixture::new();
    let Ok(Installed::New(runtime)) = fixture.install() else { panic!("it is installed") };
    fs::write(runtime.library().unwrap(), "cut").unwrap();
    assert!(matches!(fixture.install(), Ok(Installed::New(_))));
    assert!(fixture.runtimes().cuda().is_some());
}

#[test]
fn two_installations_at_once_do_not_mix() {
    let fixture = Fixture::new();
    let other = fixture.runtimes().lock().unwrap();
    assert!(matches!(fixture.install(), Err(InstallError::Folder(RuntimesDirError::Busy))));
    assert!(fixture.asked().is_empty());
    drop(other);
    assert!(matches!(fixture.install(), Ok(Installed::New(_))));
}

#[test]
fn the_next_run_removes_a_replaced_runtime_that_a_crash_left() {
    let fixture = Fixture::new();
    let Ok(Installed::New(runtime)) = fixture.install() else { panic!("it is installed") };
    let staging = fixture.runtimes().staging("1.0.0");
    let leave_replaced = || {
        fs::create_dir_all(staging.join(REPLACED)).unwrap();
        fs::write(staging.join(REPLACED).join("library"), b"damaged").unwrap();
    };
    // The crash came after the new runtime had its name.
    leave_replaced();
    assert!(matches!(fixture.install(), Ok(Installed::Before(_))));
    assert!(!staging.exists());
    // The new runtime was damaged as well.
    leave_replaced();
    fs::write(runtime.library().unwrap(), "cut").unwrap();
    assert!(matches!(fixture.install(), Ok(Installed::New(_))));
    assert!(!staging.exists() && fixture.runtimes().cuda().is_some());
}

#[test]
fn too_little_room_is_said_before_anything_is_downloaded() {
    let mut fixture = Fixture::new();
    fixture.packages[0].unpacked_bytes = 1 << 60;
    let error = fixture.install().unwrap_err();
    assert!(matches!(error, InstallError::Room { .. }), "{error}");
    assert!(error.to_string().contains("are free: make room"), "{error}");
    assert!(fixture.asked().is_empty());
}

#[test]
fn without_pip_the_remedy_is_named() {
    let fixture = Fixture::new();
    let (runtimes, progress) = (fixture.runtimes(), RecordedProgress::default());
    let installation = Installation {
        runtimes: &runtimes,
        version: "1.0.0",
        packages: &fixture.packages,
        progress: &progress,
    };
    let error = installation.run(|| None).unwrap_err();
    assert!(error.to_string().contains("apt install python3-pip"), "{error}");
}
