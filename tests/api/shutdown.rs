//! Stopping the server.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, prompt};

/// Sends a request that waits for minutes, in its own thread.
fn waiter(app: &TestApp, method: &'static str, target: String) -> std::thread::JoinHandle<serde_json::Value> {
    let port = app.port;
    std::thread::spawn(move || {
        let request = Request::new(method, &target).header("Authorization", KEY);
        let request = if method == "POST" { request.body(prompt("a dog").to_string()) } else { request };
        request.send(port).json()
    })
}

#[test]
fn a_stop_answers_waiting_requests_at_once() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let runsync = waiter(&app, "POST", "/v2/stable-diffusion-v1/runsync?wait=300000".to_owned());
    while app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inQueue"] != 2 {
        std::thread::yield_now();
    }
    let status = waiter(&app, "GET", format!("/v2/stable-diffusion-v1/status-sync/{id}?wait=300000"));
    app.get("/v2/stable-diffusion-v1/health"); // the waiting request has connected by now
    let start = Instant::now();
    app.stop();
    assert_eq!(runsync.join().unwrap()["status"], "IN_QUEUE");
    if let Ok(body) = status.join() {
        assert_eq!(body["status"], "IN_QUEUE");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_job_that_finishes_within_the_grace_period_completes() {
    let mut app = TestApp::start();
    app.script.hold();
    let id = app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    app.script.open();
    app.restart();
    let body = app.wait(&id);
    assert_eq!(body["status"], "COMPLETED");
}

#[test]
fn a_job_that_exceeds_the_grace_period_goes_back_to_the_queue() {
    let mut app = TestApp::with(|config| config.shutdown_grace = Duration::ZERO);
    app.script.hold();
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 500}}));
    app.script.wait_for_step(1);
    app.begin_to_stop();
    app.script.open();
    app.configure(|config| config.endpoints[0].workers = 0);
    app.restart();
    let body = app.status(&id).json();
    assert_eq!(body, json!({"delayTime": 0, "id": id, "input": body["input"], "status": "IN_QUEUE"}));
}

#[test]
fn a_broken_engine_ends_the_server_with_its_reason() {
    let app = TestApp::start_broken("The model folder holds no unet.");
    assert_eq!(app.outcome().unwrap_err(), "The model folder holds no unet.");
}
