//! `/purge-queue`.

use serde_json::json;

use crate::helpers::{TestApp, VERSIONS, prompt};

#[test]
fn purging_removes_waiting_jobs_and_counts_them() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for version in VERSIONS {
        for _ in 0..3 {
            app.submit(&prompt("a dog"));
        }
        let response = app.post(&format!("/{version}/stable-diffusion-v1/purge-queue"), json!(null));
        assert_eq!((response.status, response.json()), (200, json!({"removed": 3, "status": "completed"})));
    }
}

#[test]
fn purging_keeps_a_running_job() {
    let app = TestApp::start();
    app.script.hold();
    let id = app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    let waiting = app.submit(&prompt("a cat"));
    let response = app.post("/v2/stable-diffusion-v1/purge-queue", json!(null));
    assert_eq!(response.json(), json!({"removed": 1, "status": "completed"}));
    app.script.open();
    assert_eq!(app.wait(&id)["status"], "COMPLETED");
    assert_ne!(app.status(&waiting).json()["status"], "COMPLETED");
}
