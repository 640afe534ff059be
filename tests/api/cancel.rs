//! `/cancel`.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, VERSIONS, prompt};

#[test]
fn a_waiting_job_is_cancelled_by_get_and_post_on_both_versions() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for version in VERSIONS {
        for method in ["GET", "POST"] {
            let id = app.submit(&prompt("a dog"));
            app.advance_ms(250);
            let response = Request::new(method, &format!("/{version}/stable-diffusion-v1/cancel/{id}"))
                .header("Authorization", KEY)
                .send(app.port);
            assert_eq!((response.status, response.json()), (200, json!({"id": id, "status": "CANCELLED"})));
            assert_eq!(
                app.status(&id).json(),
                json!({"delayTime": 250, "id": id, "input": {"prompt": "a dog"}, "status": "CANCELLED"})
            );
        }
    }
}

#[test]
fn cancelling_a_running_job_stops_it_and_keeps_it_cancelled() {
    let app = TestApp::start();
    app.script.hold();
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 500}}));
    app.script.wait_for_step(1);
    let response = app.post(&format!("/v2/stable-diffusion-v1/cancel/{id}"), json!(null));
    assert_eq!(response.json(), json!({"id": id, "status": "CANCELLED"}));
    app.script.open();
    // The worker is free for the next job, and the cancelled job stays cancelled.
    let next = app.post("/v2/stable-diffusion-v1/runsync", prompt("a cat")).json();
    assert_eq!(next["status"], "COMPLETED");
    let body = app.status(&id).json();
    assert_eq!((&body["status"], body.get("output")), (&json!("CANCELLED"), None));
    assert!(app.script.steps() < 500, "the job ran all its steps");
}

#[test]
fn a_finished_job_keeps_its_state() {
    let app = TestApp::start();
    for (text, status) in [("a dog", "COMPLETED"), ("fail", "FAILED")] {
        let id = app.post("/v2/stable-diffusion-v1/runsync", prompt(text)).id();
        let response = app.post(&format!("/v2/stable-diffusion-v1/cancel/{id}"), json!(null));
        assert_eq!((response.status, response.json()), (200, json!({"id": id, "status": status})));
    }
}
