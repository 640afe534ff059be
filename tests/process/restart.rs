//! Acknowledged jobs survive the end of the process.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::helpers::{Server, data_dir, next, small};

#[test]
fn twenty_kills_under_load_lose_no_acknowledged_job() {
    let data = data_dir();
    let acknowledged = Mutex::new(BTreeSet::new());
    let mut random = 0x5eed_u64;
    for _ in 0..20 {
        let server = Server::start(data.path());
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for client in 0..3 {
                let (server, stop, acknowledged) = (&server, &stop, &acknowledged);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(id) = server.submit(&small(&format!("a dog {client}"))) else { continue };
                        let mut acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                        assert!(acknowledged.insert(id), "no id is given twice");
                        drop(acknowledged);
                        thread::sleep(Duration::from_millis(60));
                    }
                });
            }
            thread::sleep(Duration::from_millis(20 + next(&mut random) % 900));
            server.kill_now();
            stop.store(true, Ordering::Relaxed);
        });
    }

    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 20, "only {} jobs were acknowledged", acknowledged.len());
    let server = Server::start(data.path());
    for id in &acknowledged {
        let body = server.wait(id);
        assert_eq!(body["status"], "COMPLETED", "{body}");
        assert_eq!(body["output"].as_array().unwrap().len(), 1, "{body}");
    }
    // Jobs whose acknowledgement was lost may exist too.
    let health = server.get("health").unwrap();
    let completed = health["jobs"]["completed"].as_u64().unwrap();
    assert!(completed >= acknowledged.len() as u64, "{health}");
    assert_eq!(server.terminate().code(), Some(0));

    let database = rusqlite::Connection::open(data.path().join("stablehand.db")).unwrap();
    let count = |of: &str| -> i64 {
        database.query_row(&format!("select count(*) from {of}"), [], |row| row.get(0)).unwrap()
    };
    // A job whose acknowledgement was lost may have completed since.
    let completed = count("jobs where status = 'COMPLETED'");
    assert_eq!(count("images"), completed, "one picture for each completed job");
}

#[test]
fn a_job_interrupted_by_sigterm_completes_after_the_next_start() {
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_SHUTDOWN_GRACE", "0s");
    });
    let long = json!({"prompt": "a dog", "num_inference_steps": 500, "seed": 11});
    let running = server.submit(&long).unwrap();
    let queued = server.submit(&small("a cat")).unwrap();
    server.wait_until_running(&running);
    assert_eq!(server.terminate().code(), Some(0));

    let server = Server::start(data.path());
    for id in [&running, &queued] {
        let body = server.wait(id);
        assert_eq!(body["status"], "COMPLETED", "{body}");
    }
    assert_eq!(server.wait(&running)["output"][0]["seed"], 11);
}

#[test]
fn a_job_may_finish_within_the_grace_period_after_sigterm() {
    let data = data_dir();
    let server = Server::start(data.path());
    let id = server.submit(&json!({"prompt": "a dog", "num_inference_steps": 60})).unwrap();
    server.wait_until_running(&id);
    assert_eq!(server.terminate().code(), Some(0));
    let server = Server::start_without_workers(data.path());
    assert_eq!(server.get(&format!("status/{id}")).unwrap()["status"], "COMPLETED");
}

#[test]
fn a_random_seed_survives_a_restart() {
    let data = data_dir();
    let idle = Server::start_without_workers(data.path());
    let id = idle.submit(&small("a dog")).unwrap();
    assert_eq!(idle.get(&format!("status/{id}")).unwrap()["status"], "IN_QUEUE");
    idle.kill();
    let body = Server::start(data.path()).wait(&id);
    assert!(body["output"][0]["seed"].as_u64().unwrap() < 65_536, "{body}");
}
