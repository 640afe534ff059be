//! `policy`: timeout, time to live and priority.

use serde_json::json;

use crate::helpers::TestApp;

const ENDPOINT: &str = "/v2/stable-diffusion-v1";

#[test]
fn a_job_times_out_after_its_execution_timeout() {
    let app = TestApp::start();
    app.script.allow(1);
    let id = app.submit(&json!({
        "input": {"prompt": "a dog", "num_inference_steps": 10}, "policy": {"executionTimeout": 3000},
    }));
    app.script.wait_for_step(2);
    // The JavaScript client sends 3000 ms, which is raised to the minimum of 5 s.
    app.advance_ms(5_000);
    app.script.open();
    let body = app.get(&format!("{ENDPOINT}/status-sync/{id}")).json();
    assert_eq!(
        body,
        json!({
            "delayTime": 0, "executionTime": 5000, "gpu": "cpu", "id": id,
            "error": "The job was stopped after 5000 ms of work, its executionTimeout.",
            "input": {"prompt": "a dog", "num_inference_steps": 10}, "status": "TIMED_OUT",
        })
    );
    let retried = app.post(&format!("{ENDPOINT}/retry/{id}"), json!(null));
    assert_eq!(retried.json(), json!({"id": id, "status": "IN_QUEUE"}));
    assert_eq!(app.get(&format!("{ENDPOINT}/status-sync/{id}")).json()["status"], "COMPLETED");
}

#[test]
fn a_job_is_404_after_its_ttl() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&json!({"input": {"prompt": "a dog"}, "policy": {"ttl": 20_000}}));
    app.advance_ms(19_999);
    assert_eq!(app.get(&format!("{ENDPOINT}/status/{id}")).status, 200);
    app.advance_ms(1);
    for operation in ["status", "status-sync", "cancel"] {
        assert_eq!(app.get(&format!("{ENDPOINT}/{operation}/{id}")).status, 404, "{operation}");
    }
}

#[test]
fn a_low_priority_job_runs_after_the_others() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let patient = app.submit(&json!({"input": {"prompt": "a dog"}, "policy": {"lowPriority": true}}));
    let other = app.submit(&json!({"input": {"prompt": "a cat"}}));
    app.script.allow(10);
    app.configure(|config| config.endpoints[0].workers = 1);
    app.restart();
    app.script.wait_for_step(11);
    let status = |id: &str| app.get(&format!("{ENDPOINT}/status/{id}")).json()["status"].clone();
    assert_eq!((status(&patient), status(&other)), (json!("IN_QUEUE"), json!("IN_PROGRESS")));
    app.script.open();
    assert_eq!(app.get(&format!("{ENDPOINT}/status-sync/{patient}")).json()["status"], "COMPLETED");
    assert_eq!(status(&other), "COMPLETED");
}
