//! `/status` and `/status-sync`.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, VERSIONS, prompt};

#[test]
fn status_shows_a_job_by_get_and_post_on_both_versions() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    app.advance_ms(1_500);
    for version in VERSIONS {
        for method in ["GET", "POST"] {
            let response = Request::new(method, &format!("/{version}/stable-diffusion-v1/status/{id}"))
                .header("Authorization", KEY)
                .send(app.port);
            assert_eq!(response.status, 200);
            assert_eq!(
                response.json(),
                json!({"delayTime": 1500, "id": id, "input": {"prompt": "a dog"}, "status": "IN_QUEUE"})
            );
        }
    }
}

#[test]
fn the_input_is_echoed_byte_for_byte() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let input = r#"{ "seed":18446744073709551615, "guidance_scale": 7.50, "prompt" : "\u00e9\/" }"#;
    let response = app.post_text("/v2/stable-diffusion-v1/run", &format!(r#"{{"input":{input}}}"#));
    let id = response.id();
    let status = app.status(&id);
    assert_eq!(
        status.text(),
        format!(r#"{{"delayTime":0,"id":"{id}","input":{input},"status":"IN_QUEUE"}}"#)
    );
}

#[test]
fn a_running_job_shows_its_progress() {
    let app = TestApp::start();
    app.script.allow(1);
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 3}}));
    app.script.wait_for_step(2);
    let body = app.status(&id).json();
    assert_eq!(
        body,
        json!({
            "delayTime": 0, "gpu": "cpu", "id": id, "input": {"prompt": "a dog", "num_inference_steps": 3},
            "progress": {"step": 1, "steps": 3, "eta": 0},
            "status": "IN_PROGRESS",
        })
    );
    app.script.open();
    let ended = app.wait(&id);
    assert_eq!(ended["status"], "COMPLETED");
    assert_eq!(ended.get("progress"), None);
}

#[test]
fn status_sync_waits_until_the_job_ends() {
    let app = TestApp::start();
    for version in VERSIONS {
        for method in ["GET", "POST"] {
            app.script.hold();
            let id = app.submit(&prompt("a dog"));
            let target = format!("/{version}/stable-diffusion-v1/status-sync/{id}?wait=60000");
            let port = app.port;
            let waiter = std::thread::spawn(move || {
                Request::new(method, &target).header("Authorization", KEY).send(port).json()
            });
            app.script.open();
            assert_eq!(waiter.join().unwrap()["status"], "COMPLETED");
        }
    }
}

#[test]
fn status_sync_returns_the_unfinished_job_when_its_wait_is_over() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let response = app.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}?wait=1"));
    assert_eq!((response.status, response.json()["status"].clone()), (200, json!("IN_QUEUE")));
    assert_eq!(app.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}?wait=x")).status, 400);
}

#[test]
fn a_job_survives_a_restart() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    app.restart();
    assert_eq!(app.status(&id).json()["status"], "IN_QUEUE");
}
