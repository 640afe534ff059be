//! `/health`.

use serde_json::json;

use crate::helpers::{TestApp, VERSIONS, prompt};

#[test]
fn health_counts_jobs_and_workers() {
    let app = TestApp::start();
    app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog"));
    app.post("/v2/stable-diffusion-v1/runsync", prompt("fail"));
    app.script.hold();
    app.submit(&prompt("a cat"));
    app.script.wait_for_step(1);
    app.submit(&prompt("a bird"));
    for version in VERSIONS {
        let response = app.get(&format!("/{version}/stable-diffusion-v1/health"));
        assert_eq!(response.status, 200);
        let body = response.json();
        assert_eq!(
            body["jobs"],
            json!({"completed": 1, "failed": 1, "inProgress": 1, "inQueue": 1, "retried": 0})
        );
        for count in ["idle", "initializing", "ready", "running", "throttled"] {
            assert!(body["workers"][count].is_u64(), "{body}");
        }
        assert_eq!(body["workers"]["running"], 1);
        assert_eq!(body["workers"].as_object().unwrap().len(), 5);
    }
}

#[test]
fn health_answers_while_the_engine_is_loading() {
    let app = TestApp::loading_until_opened();
    let workers = || app.get("/v2/stable-diffusion-v1/health").json()["workers"].clone();
    while workers()["initializing"] != 1 {
        std::thread::yield_now(); // the worker's thread is just starting
    }
    let id = app.submit(&prompt("a dog"));
    app.script.open();
    assert_eq!(app.wait(&id)["status"], "COMPLETED");
}
