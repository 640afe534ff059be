//! `Idempotency-Key`.

use std::collections::BTreeSet;

use serde_json::json;

use crate::client::{Request, Response};
use crate::helpers::{TestApp, keyed, prompt};

const RUN: &str = "/v2/stable-diffusion-v1/run";

fn run(key: &str, text: &str) -> Request {
    keyed("POST", RUN)
        .header("Content-Type", "application/json")
        .header("Idempotency-Key", key)
        .body(prompt(text).to_string())
}

fn id(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.id()
}

fn queued(app: &TestApp) -> u64 {
    app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inQueue"].as_u64().unwrap()
}

#[test]
fn the_same_request_with_the_same_key_makes_one_job() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let first = id(&run("night-1", "a dog").send(app.port));
    let again = run("night-1", "a dog").send(app.port);
    assert_eq!(again.json(), json!({"id": first, "status": "IN_QUEUE"}));
    assert_ne!(id(&run("night-2", "a dog").send(app.port)), first);
    assert_eq!(queued(&app), 2);
    app.get(&format!("/v2/stable-diffusion-v1/cancel/{first}"));
    app.restart();
    let later = run("night-1", "a dog").send(app.port);
    assert_eq!(later.json(), json!({"id": first, "status": "CANCELLED"}));
}

#[test]
fn the_same_key_with_another_body_is_a_conflict() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    id(&run("night-1", "a dog").send(app.port));
    let refused = run("night-1", "a cat").send(app.port);
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (409, "This Idempotency-Key was already used for another request: use a new key for each request.")
    );
    assert_eq!(queued(&app), 1);
}

#[test]
fn another_api_key_may_use_the_same_idempotency_key() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let ours = id(&run("night-1", "a dog").send(app.port));
    let theirs = Request::new("POST", RUN)
        .header("Authorization", "second-key")
        .header("Idempotency-Key", "night-1")
        .body(prompt("a dog").to_string());
    assert_ne!(id(&theirs.send(app.port)), ours);
}

#[test]
fn an_expired_job_frees_its_key() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let first = id(&run("night-1", "a dog").send(app.port));
    app.advance_ms(24 * 3_600_000);
    let second = id(&run("night-1", "a cat").send(app.port));
    assert_ne!(first, second);
    assert_eq!(id(&run("night-1", "a cat").send(app.port)), second);
}

#[test]
fn runsync_waits_for_the_earlier_job() {
    let app = TestApp::start();
    let send = || {
        keyed("POST", "/v2/stable-diffusion-v1/runsync")
            .header("Idempotency-Key", "night-1")
            .body(prompt("a dog").to_string())
            .send(app.port)
            .json()
    };
    let (first, second) = (send(), send());
    assert_eq!(first["status"], "COMPLETED");
    assert_eq!(first, second);
}

#[test]
fn fifty_clients_at_once_make_one_job() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let port = app.port;
    let clients: Vec<_> =
        (0..50).map(|_| std::thread::spawn(move || id(&run("night-1", "a dog").send(port)))).collect();
    let ids: BTreeSet<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(queued(&app), 1);
}

#[test]
fn an_invalid_key_is_refused() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for key in ["", "two words", &"k".repeat(256)] {
        let refused = run(key, "a dog").send(app.port);
        assert_eq!(refused.status, 400);
        assert_eq!(refused.error(), "Idempotency-Key should be 1 to 255 visible ASCII characters.");
    }
    let twice = run("one", "a dog").header("Idempotency-Key", "two").send(app.port);
    assert_eq!(twice.error(), "Send the Idempotency-Key header only once.");
    assert_eq!(queued(&app), 0);
}
