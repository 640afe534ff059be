//! Four hours of a server in a minute: 20,000 jobs, with a clock that moves on with each job and an engine that follows a
//! script. Anything that the server never releases would show in its memory, file descriptors, threads or files. This is
//! the only test in its binary, since the whole process is measured.
//!
//! `STABLEHAND_SOAK_JOBS=500000 cargo test --test soak -- --ignored --nocapture` is the proof at its full size.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test may panic, and literals are moved"
)]
#![expect(dead_code, reason = "the helpers are those of tests/api, and not all of them are needed here")]

#[path = "api/client.rs"]
mod client;
#[path = "api/engine.rs"]
mod engine;
#[path = "api/helpers.rs"]
mod helpers;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use client::{Request, Response};
use helpers::TestApp;
use stablehand::http::RateLimits;

/// How many jobs there are if the environment does not say it.
const JOBS: u32 = 20_000;
const HOURS_US: i64 = 4 * 60 * 60 * 1_000_000;
/// The resources are looked at so often. After the first time every pool is filled, every cache is warm, and jobs are
/// forgotten as fast as they come.
const LOOKS: u32 = 4;
const CLIENTS: u32 = 4;

/// The resources that the process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    resident_kib: u64,
    descriptors: usize,
    threads: usize,
    disk_kib: u64,
}

impl Held {
    fn now(app: &TestApp) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let files = fs::read_dir(app.data_dir()).unwrap().map(|file| file.unwrap().metadata().unwrap().len());
        Self {
            resident_kib: line.split_whitespace().nth(1).unwrap().parse().unwrap(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            disk_kib: files.sum::<u64>() / 1024,
        }
    }
}

#[test]
#[ignore = "takes a minute or more"]
fn hours_of_jobs_leave_memory_descriptors_threads_and_files_as_they_were() {
    let jobs: u32 = std::env::var("STABLEHAND_SOAK_JOBS").map_or(JOBS, |jobs| jobs.parse().unwrap());
    let app = TestApp::with(|config| {
        config.sweep_interval = Duration::from_millis(100);
        config.http.rate_limits = RateLimits::OFF;
        // With this clock, a minute is over before a busy machine gets back to one of the clients.
        config.queue.sync_retention = config.queue.retention;
    });
    let next = Arc::new(AtomicU32::new(0));
    let work = |until: u32| {
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    while let Some(job) = take(&next, until) {
                        live(&app, job);
                        let time = |jobs_done: u32| i64::from(jobs_done) * HOURS_US / i64::from(jobs) / 1000;
                        app.advance_ms(time(job + 1) - time(job));
                    }
                });
            }
        });
    };
    let looks: Vec<Held> = (1..=LOOKS)
        .map(|look| {
            work(jobs / LOOKS * look);
            let held = Held::now(&app);
            println!("after {} jobs {held:?}", jobs / LOOKS * look);
            held
        })
        .collect();
    let (warm, end) = (looks[0], looks[looks.len() - 1]);

    assert!(end.resident_kib < warm.resident_kib + 8 * 1024, "{looks:?}");
    // A few connections may be closing at either moment.
    assert!(end.descriptors <= warm.descriptors + 4, "{looks:?}");
    assert!(end.threads <= warm.threads + 4, "{looks:?}");
    assert!(end.disk_kib < 2 * warm.disk_kib, "{looks:?}");
    let counts = app.get("/v2/stable-diffusion-v1/health").json()["jobs"].clone();
    let kept: u64 = ["completed", "failed"].iter().map(|state| counts[state].as_u64().unwrap()).sum();
    assert!(kept <= u64::from(jobs) / 8 + 500, "half an hour of jobs is kept: {counts}");
    assert_eq!(counts["inProgress"], 0);
}

fn take(next: &AtomicU32, until: u32) -> Option<u32> {
    next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |job| (job < until).then_some(job + 1)).ok()
}

/// One job from submission to end, as different clients would use it.
fn live(app: &TestApp, job: u32) {
    let path = |operation: &str, id: &str| format!("/v2/stable-diffusion-v1/{operation}/{id}");
    let prompt = if job % 50 == 7 { "fail".to_owned() } else { format!("a dog in scene {job}") };
    let body = json!({"input": {"prompt": prompt, "num_inference_steps": 3, "width": 128, "height": 128}});
    if job.is_multiple_of(5) {
        let done = ok(app.post("/v2/stable-diffusion-v1/runsync", body));
        fetch(app, &done);
        return;
    }
    let id = app.submit(&body);
    match job % 50 {
        11 => {
            let status = ok(app.post(&path("cancel", &id), Value::Null))["status"].clone();
            assert!(status == "CANCELLED" || status == "COMPLETED", "{status}");
        }
        7 => {
            assert_eq!(ok(app.get(&path("status-sync", &id)))["status"], "FAILED");
            assert_eq!(ok(app.post(&path("retry", &id), Value::Null))["status"], "IN_QUEUE");
            assert_eq!(ok(app.get(&path("status-sync", &id)))["status"], "FAILED");
        }
        // Its client never comes back.
        3 => {}
        _ => {
            let done = ok(app.get(&path("status-sync", &id)));
            fetch(app, &done);
        }
    }
}

fn ok(response: Response) -> Value {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn fetch(app: &TestApp, done: &Value) {
    assert_eq!(done["status"], "COMPLETED", "{done}");
    let url = done["output"][0]["image"].as_str().unwrap();
    let target = url.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])).unwrap();
    assert_eq!(Request::new("GET", target).send(app.port).status, 200);
}
