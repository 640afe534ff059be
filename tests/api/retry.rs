//! `/retry`.

use serde_json::json;

use crate::helpers::{TestApp, VERSIONS, prompt};

#[test]
fn a_failed_job_is_retried_with_the_same_id() {
    let app = TestApp::start();
    for version in VERSIONS {
        let id = app.post("/v2/stable-diffusion-v1/runsync", prompt("fail")).id();
        app.script.hold();
        let response = app.post(&format!("/{version}/stable-diffusion-v1/retry/{id}"), json!(null));
        assert_eq!((response.status, response.json()), (200, json!({"id": id, "status": "IN_QUEUE"})));
        app.script.open();
        let again = app.wait(&id);
        assert_eq!(again["status"], "FAILED");
    }
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["retried"], 2);
}

#[test]
fn other_jobs_cannot_be_retried() {
    let app = TestApp::start();
    let id = app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog")).id();
    let response = app.post(&format!("/v2/stable-diffusion-v1/retry/{id}"), json!(null));
    assert_eq!(response.status, 400);
    assert_eq!(
        response.error(),
        "Only a job that is FAILED or TIMED_OUT can be retried; this one is COMPLETED."
    );
    let unknown = "/v2/stable-diffusion-v1/retry/c80ffee4-f315-4e25-a146-0f3d98cf024b";
    assert_eq!(app.post(unknown, json!(null)).status, 404);
}
