//! `/live` and `/ready`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Request, Response};
use crate::helpers::{TestApp, prompt};

/// Asks without a key.
fn ask(app: &TestApp, path: &str) -> Response {
    Request::new("GET", path).send(app.port)
}

fn ready(app: &TestApp, query: &str) -> u16 {
    ask(app, &format!("/ready{query}")).status
}

/// The worker's thread needs a moment to start.
fn until_ready(app: &TestApp) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while ready(app, "") != 200 {
        assert!(Instant::now() < deadline, "it is never ready");
        std::thread::yield_now();
    }
}

#[test]
fn they_say_yes_or_no_and_need_no_key() {
    let app = TestApp::start();
    until_ready(&app);
    for path in ["/live", "/ready", "/v1/live", "/v1/ready", "/v2/live", "/v2/ready"] {
        let response = ask(&app, path);
        assert_eq!((response.status, response.json()), (200, json!({"ok": true})), "{path}");
        assert_eq!(Request::new("POST", path).send(app.port).status, 405, "{path}");
    }
    let refused = ask(&app, "/ready?max_wait=soon");
    assert_eq!(refused.status, 400);
    assert_eq!(refused.error(), "max_wait should be a time, such as max_wait=30s or max_wait=2m.");
}

#[test]
fn a_server_is_alive_before_its_model_is_loaded_and_ready_after() {
    let app = TestApp::loading_until_opened();
    assert_eq!(ask(&app, "/live").status, 200);
    let response = ask(&app, "/ready");
    assert_eq!((response.status, response.json()), (503, json!({"ok": false})));
    assert_eq!(response.header("retry-after"), Some("5"));
    app.script.open();
    until_ready(&app);
}

#[test]
fn a_server_is_ready_for_those_who_wait_as_long_as_its_queue() {
    let app = TestApp::start();
    until_ready(&app);
    assert_eq!(ready(&app, "?max_wait=0"), 200);
    // A job takes 20 s.
    app.script.hold();
    let first = app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    app.advance_ms(20_000);
    app.script.open();
    app.wait(&first);
    // One job runs, and two wait.
    app.script.hold();
    app.submit(&prompt("a cat"));
    app.script.wait_for_step(1);
    app.submit(&prompt("a bird"));
    app.submit(&prompt("a fish"));
    assert_eq!([ready(&app, "?max_wait=55s"), ready(&app, "?max_wait=60s")], [503, 200]);
    assert_eq!(ready(&app, ""), 200);
    app.script.open();
}

#[test]
fn a_server_that_takes_no_job_is_not_ready() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    assert_eq!(ready(&app, ""), 503, "nobody would draw it");

    let app = TestApp::with(|config| config.queue.queue_limit = 1);
    until_ready(&app);
    app.script.hold();
    app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    app.submit(&prompt("a cat"));
    assert_eq!(ready(&app, ""), 503, "the queue is full");
    assert_eq!(ask(&app, "/live").status, 200);
    app.script.open();
}
