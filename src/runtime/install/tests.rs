//! Installations of small wheels, by a script in pip's place.

use std::cell::RefCell;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;
use crate::runtime::packages::Licence;

/// A world of its own: a data folder, wheels that an index would have, and a pip that copies them.
struct World {
    data: TempDir,
    index: TempDir,
    packages: Vec<Package>,
}

/// Writes down what it is asked for, then copies the wheel of the package that the requirements name.
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
cp "$index/$name"-*.whl "$dest"
"#;

impl World {
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
        }
        outcome
    }

    /// What pip was asked for, one name a call.
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

/// Every position that the progress bar was at.
#[derive(Default)]
struct RecordedProgress(RefCell<Vec<u64>>);

impl InstallProgress for RecordedProgress {
    fn begin(&self) {}

    fn position(&self, bytes: u64) {
        self.0.borrow_mut().push(bytes);
    }

    fn package(&self, _: &Package, _: bool) {}
}

/// A wheel in the index, with more in it than is taken.
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
    let world = World::new();
    let Ok(Installed::New(runtime)) = world.install() else { panic!("it is installed") };
    assert_eq!(runtime.path, world.data.path().join("runtimes/cuda-1.0.0"));
    assert_eq!(world.runtimes().cuda(), Some(runtime.clone()));
    let text = |path: &str| fs::read_to_string(runtime.path.join(path)).unwrap();
    assert_eq!(text("nvidia/cu13/lib/libsmall.so.13"), "nvidia-small: nvidia/cu13/lib/libsmall.so.13");
    assert_eq!(text("licences/onnxruntime-gpu/LICENSE"), "onnxruntime-gpu: LICENSE");
    assert_eq!(runtime.library().unwrap(), runtime.path.join("onnxruntime/capi/libonnxruntime.so.1.0.0"));
    assert!(!runtime.path.join("other.py").exists(), "only what is needed is unpacked");
    let mode = fs::metadata(world.runtimes().path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "other users see nothing of a new data folder");
    let left: Vec<_> = fs::read_dir(world.runtimes().path()).unwrap().collect();
    assert_eq!(left.len(), 1, "no wheel and no staging folder is left: {left:?}");

    assert!(matches!(world.install(), Ok(Installed::Before(_))));
    assert_eq!(world.asked().len(), 2, "nothing is downloaded twice");
}

#[test]
fn what_is_unpacked_is_not_downloaded_again() {
    let world = World::new();
    world.says("onnxruntime_gpu", "ERROR: the network is gone");
    let error = world.install().unwrap_err();
    assert!(error.to_string().contains("onnxruntime-gpu 1.0.0 (the network is gone)"), "{error}");
    assert_eq!(world.runtimes().list(), [], "half a runtime has no name");
    assert!(world.runtimes().unfinished_bytes() > 0);

    world.says_no_more("onnxruntime_gpu");
    world.install().unwrap();
    assert_eq!(world.asked(), ["nvidia_small", "onnxruntime_gpu", "onnxruntime_gpu"]);
    assert!(world.runtimes().cuda().is_some_and(|runtime| runtime.manifest.packages.len() == 2));
}

#[test]
fn other_bytes_than_the_pinned_ones_are_never_unpacked() {
    let mut world = World::new();
    world.packages[0].sha256 = "0000000000000000000000000000000000000000000000000000000000000000";
    // pip did not notice.
    assert!(matches!(world.install(), Err(InstallError::OtherBytes { package: "nvidia-small", .. })));
    let staging = world.runtimes().staging("1.0.0");
    assert!(!staging.join("files").exists() && fs::read_dir(staging.join("wheels")).unwrap().count() == 0);
    // It did.
    world.says("nvidia_small", "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.");
    assert!(matches!(world.install(), Err(InstallError::OtherBytes { package: "nvidia-small", .. })));
}

#[test]
fn a_damaged_runtime_is_replaced() {
    let world = World::new();
    let Ok(Installed::New(runtime)) = world.install() else { panic!("it is installed") };
    fs::write(runtime.library().unwrap(), "cut").unwrap();
    assert!(matches!(world.install(), Ok(Installed::New(_))));
    assert!(world.runtimes().cuda().is_some());
}

#[test]
fn two_installations_at_once_do_not_mix() {
    let world = World::new();
    let staging = world.runtimes().staging("1.0.0");
    fs::create_dir_all(&staging).unwrap();
    let _other = lock(&staging).unwrap();
    assert!(matches!(world.install(), Err(InstallError::Busy)));
}

#[test]
fn too_little_room_is_said_before_anything_is_downloaded() {
    let mut world = World::new();
    world.packages[0].unpacked_bytes = 1 << 60;
    let error = world.install().unwrap_err();
    assert!(matches!(error, InstallError::Room { .. }), "{error}");
    assert!(error.to_string().contains("are free: make room"), "{error}");
    assert!(world.asked().is_empty());
}

#[test]
fn without_pip_the_remedy_is_named() {
    let world = World::new();
    let (runtimes, progress) = (world.runtimes(), RecordedProgress::default());
    let installation = Installation {
        runtimes: &runtimes,
        version: "1.0.0",
        packages: &world.packages,
        progress: &progress,
    };
    let error = installation.run(|| None).unwrap_err();
    assert!(error.to_string().contains("apt install python3-pip"), "{error}");
}
