//! Disks that are full, read-only, or locked by another program. The error is clear, no acknowledged job is lost, and the
//! server recovers.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::{KEY, PATIENCE, Server, assert_refused, data_dir, output, small, stablehand};

/// A small disk in memory, mounted for one test.
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    pub fn mount(size: &str) -> Self {
        let disk = Self { dir: data_dir() };
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"], disk.path());
        disk
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Uses up all free space.
    fn fill(&self) {
        let full = fs::write(self.path().join("filler"), vec![0; 80 << 20]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    /// Undoes `fill`.
    fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    fn remount(&self, option: &str) {
        run("mount", &["-o", &format!("remount,{option}")], self.path());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(program: &str, args: &[&str], path: &Path) {
    assert!(Command::new(program).args(args).arg(path).status().unwrap().success(), "{program} {args:?}");
}

fn start(data: &Path) -> Server {
    Server::start_with(data, |command| {
        command
            .env("STABLEHAND_WORKERS", "0")
            .env("STABLEHAND_SWEEP_INTERVAL", "100ms")
            .env("STABLEHAND_RATE_LIMITS", "off");
    })
}

/// The status code and the error of a request.
fn answer(server: &Server, method: &str, path: &str, body: &Value) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = server.url(path);
    let answer = match method {
        "GET" => agent.get(url).header("Authorization", KEY).call(),
        _ => agent.post(url).header("Authorization", KEY).send_json(body),
    };
    let mut answer = answer.unwrap();
    let body: Value = answer.body_mut().read_json().unwrap();
    (answer.status().as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
}

fn large() -> Value {
    // Spaces are not tokens, so this is still a short prompt.
    json!({"prompt": format!("a dog{}", " ".repeat(60_000))})
}

/// Submits jobs until one is refused. Returns the acknowledged ids and the error.
fn fill(server: &Server) -> (Vec<String>, String) {
    let mut acknowledged = Vec::new();
    while let Some(id) = server.submit(&large()) {
        acknowledged.push(id);
        assert!(acknowledged.len() < 1000, "the disk is small");
    }
    let (status, error) = answer(server, "POST", "run", &json!({"input": large()}));
    assert_eq!(status, 503, "{error}");
    (acknowledged, error)
}

fn assert_queued(server: &Server, ids: &[String]) {
    for id in ids {
        assert_eq!(server.get(&format!("status/{id}")).unwrap()["status"], "IN_QUEUE", "{id}");
    }
}

#[test]
#[ignore = "needs root, to mount a disk"]
fn a_full_disk_refuses_jobs_and_keeps_the_acknowledged_ones() {
    let disk = Disk::mount("72m");
    let server = start(&disk.data());
    let mut ids = vec![server.submit(&large()).unwrap()];
    // Another program uses up the reserve too.
    disk.fill();
    let (status, error) = answer(&server, "POST", "run", &json!({"input": large()}));
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("make room and try again"), "{error}");
    assert_queued(&server, &ids);
    assert_eq!(answer(&server, "GET", "health", &Value::Null).0, 200);

    disk.empty();
    ids.push(server.submit(&large()).expect("there is free space"));
    assert_queued(&server, &ids);
    disk.fill();
    server.kill();
    disk.empty();
    assert_queued(&start(&disk.data()), &ids);
}

#[test]
#[ignore = "needs root, to mount a disk"]
fn a_disk_full_of_jobs_leaves_enough_space_to_delete_them() {
    let disk = Disk::mount("72m");
    let server = start(&disk.data());
    let (ids, error) = fill(&server);
    assert!(error.contains("less than 64 MiB left; make room and try again"), "{error}");
    assert_queued(&server, &ids);
    let purged = server.post("purge-queue", &Value::Null).unwrap();
    assert_eq!(purged, json!({"removed": ids.len(), "status": "completed"}));
    // The sweeper returns the free pages to the disk in its next round.
    let deadline = Instant::now() + PATIENCE;
    while server.submit(&large()).is_none() {
        assert!(Instant::now() < deadline, "the free space is used again");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root, to mount a disk"]
fn a_finished_picture_waits_for_free_space() {
    let disk = Disk::mount("72m");
    let log = data_dir();
    let log = log.path().join("log");
    let server = Server::start_with(&disk.data(), |command| {
        command.stderr(File::create(&log).unwrap());
    });
    // The job takes long enough to fill the disk meanwhile.
    let id = server.submit(&json!({"prompt": "a dog", "num_outputs": 3})).unwrap();
    server.wait_until_running(&id);
    let deadline = Instant::now() + PATIENCE;
    disk.fill();
    while !fs::read_to_string(&log).unwrap().contains("the disk that holds the job database is full") {
        assert!(Instant::now() < deadline, "the worker logs why it cannot finish the job");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.get(&format!("status/{id}")).unwrap()["status"], "IN_PROGRESS");
    disk.empty();
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
}

#[test]
#[ignore = "needs root, to mount a disk"]
fn a_read_only_data_folder_is_named_and_works_again_when_writable() {
    let disk = Disk::mount("72m");
    let server = start(&disk.data());
    let id = server.submit(&small("a dog")).unwrap();
    assert_eq!(server.terminate().code(), Some(0));
    disk.remount("ro");
    let mut command = stablehand(&["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"]);
    command.arg(disk.data()).env("STABLEHAND_API_KEYS", KEY);
    assert_refused(&output(command), 1, &[disk.data().to_str().unwrap(), "ead-only"]);
    disk.remount("rw");
    assert_queued(&start(&disk.data()), &[id]);
}

#[test]
fn a_database_locked_by_another_program_is_503_until_it_is_released() {
    let data = data_dir();
    let server = start(data.path());
    let mut ids = vec![server.submit(&small("a dog")).unwrap()];
    let other = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    other.execute_batch("begin exclusive").unwrap();

    let began = Instant::now();
    let (status, error) = answer(&server, "POST", "run", &json!({"input": small("a cat")}));
    assert_eq!(status, 503, "{error}");
    assert!(error.contains("locked by another program; close it and try again"), "{error}");
    // The published clients give up after 3 s, so the error must come earlier.
    assert!(began.elapsed().as_millis() < 3000, "{:?}", began.elapsed());
    assert_queued(&server, &ids);
    assert_eq!(answer(&server, "GET", "health", &Value::Null).0, 200);

    other.execute_batch("rollback").unwrap();
    ids.push(server.submit(&small("a dog")).unwrap());
    assert_queued(&server, &ids);
    assert_eq!(server.get("health").unwrap()["jobs"]["inQueue"], 2, "a refused job is not queued");
}
