//! A long job goes on where it was saved, in the next process, and ends in the same bytes.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::helpers::{PATIENCE, Server, data_dir, download};

const STEPS: u32 = 150;

/// Saves ten times a second: the built-in model takes a second for what others take minutes for.
fn start(data: &Path) -> Server {
    Server::start_with(data, |command| {
        command.env("STABLEHAND_SAVE_EVERY", "100ms").env("STABLEHAND_SHUTDOWN_GRACE", "0s");
    })
}

fn long() -> Value {
    json!({
        "prompt": "a red {heart|rocket}", "wildcards": true, "scheduler": "EULER-A", "num_inference_steps": STEPS,
        "width": 128, "height": 128, "num_outputs": 2, "seed": 11, "subseed_strength": 0.2, "subseed": 3,
    })
}

/// Waits until so many steps are done.
fn wait_for_step(server: &Server, id: &str, step: u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let body = server.get(&format!("status/{id}")).unwrap();
        if body["progress"]["step"].as_u64().is_some_and(|done| done >= u64::from(step)) {
            return;
        }
        assert!(Instant::now() < deadline && body["status"] != "COMPLETED", "step {step}: {body}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The pictures of a job that has ended well.
fn pictures(server: &Server, id: &str) -> Vec<Vec<u8>> {
    let body = server.wait(id);
    assert_eq!(body["status"], "COMPLETED", "{body}");
    let pictures = body["output"].as_array().unwrap().iter();
    pictures.map(|picture| download(picture["image"].as_str().unwrap())).collect()
}

/// What a server that nobody disturbs draws.
fn undisturbed() -> Vec<Vec<u8>> {
    let data = data_dir();
    let server = Server::start(data.path());
    let id = server.submit(&long()).unwrap();
    let pictures = pictures(&server, &id);
    assert_eq!(pictures.len(), 2);
    assert!((server.metric("stablehand_step_seconds_count") - f64::from(STEPS)).abs() < 0.5);
    pictures
}

#[track_caller]
fn assert_resumed(server: &Server, after: u32) {
    let resumed = server.metric("stablehand_jobs_resumed_total");
    let steps = server.metric("stablehand_step_seconds_count");
    assert!((resumed - 1.0).abs() < 0.5, "{resumed} jobs went on");
    // The last save is a while ago.
    assert!(steps < f64::from(STEPS - after / 2), "{steps} steps after the break");
}

#[test]
fn a_job_goes_on_after_kills_and_ends_in_the_same_bytes() {
    let data = data_dir();
    let mut server = start(data.path());
    let id = server.submit(&long()).unwrap();
    for step in [50, 100] {
        wait_for_step(&server, &id, step);
        server.kill();
        server = start(data.path());
    }
    let drawn = pictures(&server, &id);
    assert_resumed(&server, 100);
    assert!(drawn == undisturbed(), "the pictures of a killed server are others");
    // What was saved is gone with the end.
    assert_eq!(server.terminate().code(), Some(0));
    let database = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    let count = |of: &str| -> i64 {
        database.query_row(&format!("select count(*) from {of}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("saved_states"), count("contents")), (0, count("jobs") + 2 * count("images")));
}

#[test]
fn a_job_goes_on_after_sigterm_and_ends_in_the_same_bytes() {
    let data = data_dir();
    // Saved at the signal alone.
    let rarely = |data: &Path| {
        Server::start_with(data, |command| {
            command.env("STABLEHAND_SAVE_EVERY", "1h").env("STABLEHAND_SHUTDOWN_GRACE", "0s");
        })
    };
    let server = rarely(data.path());
    let id = server.submit(&long()).unwrap();
    wait_for_step(&server, &id, 60);
    assert_eq!(server.terminate().code(), Some(0));
    let server = rarely(data.path());
    let drawn = pictures(&server, &id);
    assert_resumed(&server, 110);
    assert!(drawn == undisturbed(), "the pictures of a restarted server are others");
}

#[test]
fn damaged_bytes_begin_the_job_anew_and_end_in_the_same_bytes() {
    let data = data_dir();
    let server = start(data.path());
    let id = server.submit(&long()).unwrap();
    wait_for_step(&server, &id, 60);
    server.kill();
    let database = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    let damaged = database
        .execute("update contents set bytes = zeroblob(length(bytes)) where id in (select state from saved_states)", [])
        .unwrap();
    assert_eq!(damaged, 1, "it was saved");
    drop(database);
    let server = start(data.path());
    let drawn = pictures(&server, &id);
    assert!((server.metric("stablehand_step_seconds_count") - f64::from(STEPS)).abs() < 0.5);
    assert!(drawn == undisturbed());
}

#[test]
fn nothing_is_saved_where_that_is_off() {
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_SAVE_EVERY", "0s").env("STABLEHAND_SHUTDOWN_GRACE", "0s");
    });
    let id = server.submit(&long()).unwrap();
    wait_for_step(&server, &id, 30);
    assert_eq!(server.terminate().code(), Some(0));
    let database = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    let saved: i64 = database.query_row("select count(*) from saved_states", [], |row| row.get(0)).unwrap();
    assert_eq!(saved, 0);
}
