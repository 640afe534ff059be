//! Interrupted downloads resume, and never mix two versions of a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::fake_hub::{Accident, FakeHub, Plain};
use super::{models, noted, pull, safetensors, said};
use crate::bad_disk::Disk;
use crate::helpers::{assert_refused, data_dir, files_under};

/// A hub with one repository of one large file.
fn hub_with(bytes: &[u8]) -> FakeHub {
    let hub = FakeHub::start();
    hub.add("org/name", &[("a.safetensors", bytes.to_vec())]);
    hub
}

fn file(folder: &Path) -> PathBuf {
    folder.join("org/name--a.safetensors/a.safetensors")
}

/// The partial file of a download.
fn partial_file(folder: &Path) -> Option<PathBuf> {
    let mut files = files_under(folder).into_iter();
    files
        .find(|path| path.extension().is_some_and(|extension| extension == "part"))
        .map(|path| folder.join(path))
}

/// A pull that stands still after some bytes.
struct Stalled(Child);

impl Stalled {
    fn at(bytes: u64, hub: &FakeHub, folder: &Path, model: &str) -> Self {
        let mut command = models(hub, folder, &["pull", model]);
        let child = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        let size = || fs::metadata(partial_file(folder)?).ok().map(|metadata| metadata.len());
        while size().is_none_or(|size| size < bytes) {
            assert!(Instant::now() < deadline, "the download reaches this size");
            thread::sleep(Duration::from_millis(10));
        }
        child
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_says_that_the_data_is_kept() {
    let bytes = safetensors(2_000_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.push_back(Accident::Stall(1_000_000));
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while partial_file(folder.path()).is_none_or(|file| fs::metadata(file).unwrap().len() < 900_000) {
        assert!(Instant::now() < deadline, "the download reaches this size");
        thread::sleep(Duration::from_millis(10));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let stopped = child.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(130));
    assert!(
        noted(&stopped).ends_with(
            "\nstablehand: stopped: what can be resumed is kept; run the command again to resume\n"
        )
    );
    said(&pull(&hub, folder.path(), "org/name"));
    assert!(fs::read(file(folder.path())).unwrap() == bytes);
    assert!(hub.ranges().last().unwrap().as_ref().is_some_and(|range| range != "bytes=0-"));
}

#[test]
fn a_broken_connection_is_resumed() {
    let bytes = safetensors(5_000_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.extend([Accident::Cut(2_000_000), Accident::Cut(1_500_000)]);
    let output = pull(&hub, folder.path(), "org/name");
    said(&output);
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
    let ranges = hub.ranges();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1..], [Some("bytes=2000000-".to_owned()), Some("bytes=3500000-".to_owned())]);
    let if_range = hub.world().seen.last().unwrap().headers["if-range"].clone();
    assert_eq!(if_range, "\"of-the-other\"");
    assert!(noted(&output).contains("broke off at 2.0 MB of a.safetensors"), "{}", noted(&output));
}

#[test]
fn a_busy_server_is_tried_again() {
    let bytes = safetensors(1000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.push_back(Accident::Busy);
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
}

#[test]
fn the_next_pull_resumes_a_killed_one() {
    let bytes = safetensors(3_000_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.push_back(Accident::Stall(1_000_000));
    drop(Stalled::at(1_000_000, &hub, folder.path(), "org/name"));
    assert!(!file(folder.path()).exists(), "an incomplete model is not visible");
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
    assert_eq!(hub.ranges(), [None, Some("bytes=1000000-".to_owned())]);
}

#[test]
fn complete_files_are_not_downloaded_again() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &super::diffusers());
    // The two smallest files arrive, and the last one does not.
    let accidents = [Accident::Cut(usize::MAX), Accident::Cut(usize::MAX), Accident::Stall(100_000)];
    hub.world().accidents.extend(accidents);
    drop(Stalled::at(100_000, &hub, folder.path(), "org/name"));
    hub.world().seen.clear();
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(hub.ranges(), [Some("bytes=100000-".to_owned())]);
    assert_eq!(hub.files_asked_for().len(), 3, "and the two configurations that are read first");
}

#[test]
fn a_file_that_changed_between_two_pulls_starts_over() {
    let (old, new) = (safetensors(3_000_000, 1), safetensors(2_500_000, 2));
    let (hub, folder) = (hub_with(&old), data_dir());
    hub.world().accidents.push_back(Accident::Stall(1_000_000));
    drop(Stalled::at(1_000_000, &hub, folder.path(), "org/name"));
    hub.add("org/name", &[("a.safetensors", new.clone())]);
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(fs::read(file(folder.path())).unwrap(), new);
    assert_eq!(hub.ranges(), [None, None]);
    let left = files_under(folder.path()).into_iter().filter(|path| path.to_string_lossy().contains("part"));
    assert_eq!(left.count(), 0, "the partial file of the old version is gone");
}

#[test]
fn a_file_at_a_url_that_changed_between_two_pulls_starts_over() {
    let (old, new) = (safetensors(2_000_000, 1), safetensors(2_000_000, 2));
    let (hub, folder) = (FakeHub::start(), data_dir());
    let plain = |bytes: &Vec<u8>, etag| Plain { bytes: bytes.clone(), etag: Some(etag), ..Plain::default() };
    hub.world().plain.insert("a.safetensors".to_owned(), plain(&old, "\"old\""));
    // The first request checks that there is a file. The second brings half of it.
    hub.world().accidents.extend([Accident::Cut(1), Accident::Stall(1_000_000)]);
    let url = format!("{}/a.safetensors", hub.other);
    drop(Stalled::at(1_000_000, &hub, folder.path(), &url));
    hub.world().plain.insert("a.safetensors".to_owned(), plain(&new, "\"new\""));
    said(&pull(&hub, folder.path(), &url));
    assert_eq!(fs::read(file_of_url(&hub, folder.path())).unwrap(), new);
}

#[test]
fn a_file_at_a_url_that_changes_during_the_pull_starts_over() {
    let (old, new) = (safetensors(2_000_000, 1), safetensors(2_100_000, 2));
    for ignores_if_range in [false, true] {
        let (hub, folder) = (FakeHub::start(), data_dir());
        let plain =
            |bytes: &Vec<u8>, etag| Plain { bytes: bytes.clone(), etag: Some(etag), ..Plain::default() };
        hub.world().plain.insert("a.safetensors".to_owned(), plain(&old, "\"old\""));
        hub.world().next_plain = Some(("a.safetensors".to_owned(), plain(&new, "\"new\"")));
        hub.world().ignores_if_range = ignores_if_range;
        hub.world().accidents.extend([Accident::Cut(1), Accident::Change(1_000_000)]);
        let output = pull(&hub, folder.path(), &format!("{}/a.safetensors", hub.other));
        said(&output);
        assert!(noted(&output).contains("starting over"), "{}", noted(&output));
        assert_eq!(fs::read(file_of_url(&hub, folder.path())).unwrap(), new);
    }
}

fn file_of_url(hub: &FakeHub, folder: &Path) -> PathBuf {
    let host = hub.other.strip_prefix("http://").unwrap().replace(':', "_");
    folder.join(host).join("a.safetensors/a.safetensors")
}

#[test]
fn a_file_with_a_wrong_sha256_is_downloaded_once_more_and_then_refused() {
    let bytes = safetensors(100_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.push_back(Accident::Spoil);
    let output = pull(&hub, folder.path(), "org/name");
    said(&output);
    assert!(noted(&output).contains("a.safetensors is damaged"), "{}", noted(&output));
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);

    let folder = data_dir();
    hub.world().accidents.extend([Accident::Spoil, Accident::Spoil]);
    let output = pull(&hub, folder.path(), "org/name");
    assert_eq!(output.status.code(), Some(1));
    assert!(noted(&output).contains("the SHA-256 of a.safetensors from"), "{}", noted(&output));
    assert!(!file(folder.path()).exists());
}

#[test]
fn a_damaged_partial_file_starts_over() {
    let bytes = safetensors(2_000_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.world().accidents.push_back(Accident::Stall(1_000_000));
    drop(Stalled::at(1_000_000, &hub, folder.path(), "org/name"));
    fs::write(partial_file(folder.path()).unwrap(), vec![0; 1_000_000]).unwrap();
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
}

#[test]
fn two_pulls_of_one_model_exclude_each_other() {
    let bytes = safetensors(2_000_000, 1);
    let (hub, folder) = (hub_with(&bytes), data_dir());
    hub.add("org/other", &[("b.safetensors", safetensors(1000, 2))]);
    hub.world().accidents.push_back(Accident::Stall(1_000_000));
    let first = Stalled::at(1_000_000, &hub, folder.path(), "org/name");
    let second = pull(&hub, folder.path(), "org/name");
    assert_eq!(second.status.code(), Some(1));
    assert!(noted(&second).ends_with(
        "stablehand: another stablehand process is working on org/name:a.safetensors: wait until it is done, or stop it\n"
    ));
    let mut remove = models(&hub, folder.path(), &["rm", "org/name:a.safetensors"]);
    assert_refused(&remove.output().unwrap(), 1, &["another stablehand process is working"]);
    said(&pull(&hub, folder.path(), "org/other"));
    drop(first);
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(fs::read(file(folder.path())).unwrap(), bytes);
}

#[test]
fn a_file_without_a_content_length_arrives_complete() {
    let bytes = safetensors(300_000, 1);
    let (hub, folder) = (FakeHub::start(), data_dir());
    let plain = Plain { bytes: bytes.clone(), without_length: true, ..Plain::default() };
    hub.world().plain.insert("a.safetensors".to_owned(), plain);
    said(&pull(&hub, folder.path(), &format!("{}/a.safetensors", hub.other)));
    assert_eq!(fs::read(file_of_url(&hub, folder.path())).unwrap(), bytes);

    // With a length, but without anything that identifies the version.
    let folder = data_dir();
    hub.world().plain.insert("a.safetensors".to_owned(), Plain { bytes: bytes.clone(), ..Plain::default() });
    hub.world().accidents.extend([Accident::Cut(1), Accident::Cut(100_000)]);
    hub.world().seen.clear();
    said(&pull(&hub, folder.path(), &format!("{}/a.safetensors", hub.other)));
    assert_eq!(fs::read(file_of_url(&hub, folder.path())).unwrap(), bytes);
    assert_eq!(hub.ranges(), [Some("bytes=0-0".to_owned()), None, None]);
}

#[test]
#[ignore = "needs root, to mount a disk"]
fn a_full_disk_is_named_and_keeps_the_received_data() {
    let bytes = safetensors(30_000_000, 1);
    let (hub, disk) = (FakeHub::start(), Disk::mount("16m"));
    let plain = Plain { bytes: bytes.clone(), without_length: true, etag: Some("\"1\""), ..Plain::default() };
    hub.world().plain.insert("a.safetensors".to_owned(), plain);
    let url = format!("{}/a.safetensors", hub.other);
    let refused = pull(&hub, disk.path(), &url);
    assert_eq!(refused.status.code(), Some(1));
    assert!(noted(&refused).contains("is full: free some space and pull again"), "{}", noted(&refused));
    // If the server states the length, the download does not even start.
    hub.world().plain.get_mut("a.safetensors").unwrap().without_length = false;
    let refused = pull(&hub, disk.path(), &url);
    assert!(noted(&refused).contains("free some space, or choose another folder"), "{}", noted(&refused));
}
