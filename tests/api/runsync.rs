//! `/runsync`.

use serde_json::json;

use crate::helpers::{TestApp, VERSIONS, prompt};

#[test]
fn runsync_returns_the_finished_job() {
    let app = TestApp::start();
    for version in VERSIONS {
        let response = app.post(
            &format!("/{version}/stable-diffusion-v1/runsync"),
            json!({"input": {"prompt": "a dog", "seed": 5, "num_outputs": 2}}),
        );
        assert_eq!(response.status, 200);
        let body = response.json();
        let id = body["id"].as_str().unwrap().to_owned();
        assert!(id.starts_with("sync-"), "{id}");
        let image = |index: usize| body["output"][index]["image"].clone();
        assert_eq!(
            body,
            json!({
                "delayTime": 0, "executionTime": 0, "gpu": "cpu", "id": id,
                "input": {"prompt": "a dog", "seed": 5, "num_outputs": 2},
                "output": [{"image": image(0), "seed": 5}, {"image": image(1), "seed": 6}],
                "status": "COMPLETED",
            })
        );
    }
}

#[test]
fn runsync_returns_the_unfinished_job_when_its_wait_is_over() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let response = app.post("/v2/stable-diffusion-v1/runsync?wait=1000", prompt("a dog"));
    assert_eq!(response.status, 200);
    let id = response.id();
    assert_eq!(
        response.json(),
        json!({"delayTime": 0, "id": id, "input": {"prompt": "a dog"}, "status": "IN_QUEUE"})
    );
    let status = app.get(&format!("/v1/stable-diffusion-v1/status/{id}"));
    assert_eq!(status.json(), response.json(), "the job is not lost");
}

#[test]
fn a_failed_job_has_its_reason() {
    let app = TestApp::start();
    let response = app.post("/v2/stable-diffusion-v1/runsync", prompt("fail"));
    let body = response.json();
    assert_eq!(response.status, 200);
    assert_eq!(
        body,
        json!({
            "delayTime": 0, "error": "The model failed: The script says no.", "executionTime": 0, "gpu": "cpu",
            "id": body["id"], "input": {"prompt": "fail"}, "status": "FAILED",
        })
    );
}

#[test]
fn an_invalid_wait_is_refused_and_submits_nothing() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for wait in ["soon", "", "NaN", "1s", "%ff", "1%00"] {
        let response = app.post(&format!("/v2/stable-diffusion-v1/runsync?wait={wait}"), prompt("a dog"));
        assert_eq!(response.status, 400, "{wait}");
        assert_eq!(response.error(), "wait should be a number of milliseconds, such as wait=90000.");
    }
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inQueue"], 0);
}
