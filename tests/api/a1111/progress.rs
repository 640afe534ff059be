//! Progress, interrupt and skip.

use std::thread;

use serde_json::{Value, json};

use super::{SCRIPTED, info, txt2img};
use crate::client::Response;
use crate::helpers::{TestApp, prompt};

fn progress(app: &TestApp) -> Value {
    app.get("/sdapi/v1/progress").json()
}

fn idle() -> Value {
    json!({
        "progress": 0.0, "eta_relative": 0.0, "current_image": null, "textinfo": null,
        "state": {
            "skipped": false, "interrupted": false, "stopping_generation": false, "job": "", "job_count": 0,
            "job_timestamp": "0", "job_no": 0, "sampling_step": 0, "sampling_steps": 0,
        },
    })
}

/// Sends a request whose job stops within its step number `begun`, does something meanwhile, and returns the answer.
fn while_drawing(app: &TestApp, body: Value, begun: u32, meanwhile: impl FnOnce()) -> Response {
    app.script.allow(begun - 1);
    thread::scope(|scope| {
        let sending = scope.spawn(|| txt2img(app, body));
        app.script.wait_for_step(begun);
        meanwhile();
        app.script.open();
        sending.join().unwrap()
    })
}

#[test]
fn nothing_to_do_reads_as_idle() {
    let app = TestApp::start();
    assert_eq!(progress(&app), idle());
    // Nor is a job of another API shown.
    app.script.hold();
    app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    assert_eq!(progress(&app), idle());
}

#[test]
fn a_job_that_runs_is_counted_in_a1111s_terms() {
    let app = TestApp::start();
    let body = json!({"prompt": "a dog", "steps": 10, "n_iter": 2});
    while_drawing(&app, body, 4, || {
        app.advance_ms(4000);
        let found = progress(&app);
        let near = |value: &Value, expected: f64| (value.as_f64().unwrap() - expected).abs() < 1e-9;
        assert!(near(&found["progress"], 0.01 + 0.15), "{found}");
        assert!(near(&found["eta_relative"], 4.0 / 0.16 - 4.0), "{found}");
        let expected = json!({
            "skipped": false, "interrupted": false, "stopping_generation": false, "job": "Batch 1 out of 2",
            "job_count": 2, "job_timestamp": "20231114221320", "job_no": 0, "sampling_step": 3, "sampling_steps": 10,
        });
        assert_eq!(found["state"], expected);
    });
    let after = progress(&app);
    assert_eq!((&after["progress"], &after["state"]["job"]), (&json!(0.0), &json!("")));
}

#[test]
fn previews_come_once_somebody_looks() {
    let app = TestApp::start();
    while_drawing(&app, json!({"steps": 10}), 2, || {
        assert_eq!(progress(&app)["current_image"], Value::Null);
        app.script.allow(1);
        app.script.wait_for_step(1);
        let image = progress(&app)["current_image"].as_str().unwrap().to_owned();
        assert!(!image.is_empty());
        let without = app.get("/sdapi/v1/progress?skip_current_image=true").json();
        assert_eq!(without["current_image"], Value::Null);
    });
}

#[test]
fn a_job_that_waits_reads_as_idle_but_has_a_name() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    thread::scope(|scope| {
        let sending = scope.spawn(|| txt2img(&app, json!({"force_task_id": "mine"})));
        let job = || progress(&app)["state"]["job"].as_str().unwrap().to_owned();
        while job() != "scripts_txt2img" {
            thread::yield_now();
        }
        let found = progress(&app);
        assert_eq!((&found["progress"], &found["state"]["job_count"]), (&json!(0.0), &json!(0)));
        assert_eq!(app.get("/internal/pending-tasks").json(), json!({"size": 1, "tasks": ["mine"]}));
        // Its job may not be queued yet.
        while !sending.is_finished() {
            assert_eq!(app.post("/sdapi/v1/interrupt", json!({})).json(), json!({}));
            thread::yield_now();
        }
        let answer = sending.join().unwrap();
        assert_eq!((answer.status, &answer.json()["images"]), (200, &json!([])));
        assert_eq!(info(&answer)["all_seeds"], json!([]));
    });
}

#[test]
fn an_interrupted_request_is_answered_with_what_is_drawn() {
    let app = TestApp::start();
    // Two batches of five steps: the first is done, the second is at its third step.
    let body = json!({"prompt": "a dog", "steps": 5, "n_iter": 3, "seed": 1});
    let answer = while_drawing(&app, body, 8, || {
        let response = app.post_text("/sdapi/v1/interrupt", "");
        assert_eq!((response.status, response.json()), (200, json!({})));
        assert_eq!(progress(&app)["state"]["interrupted"], true);
    });
    assert_eq!(answer.json()["images"], json!([SCRIPTED, SCRIPTED]));
    assert_eq!(answer.json()["warnings"], json!(["It was stopped after 3 steps."]));
    assert_eq!(info(&answer)["all_seeds"], json!([1, 2]));
}

#[test]
fn a_skipped_batch_ends_and_the_next_one_goes_on() {
    let app = TestApp::start();
    let body = json!({"prompt": "a dog", "steps": 5, "n_iter": 2});
    let answer = while_drawing(&app, body, 2, || {
        let response = app.post("/sdapi/v1/skip", json!({}));
        assert_eq!((response.status, response.json()), (200, Value::Null));
        assert_eq!(progress(&app)["state"]["skipped"], true);
    });
    assert_eq!(answer.json()["images"], json!([SCRIPTED, SCRIPTED]));
    assert_eq!(answer.json()["warnings"], json!(["It was stopped after 2 steps."]));
}

#[test]
fn jobs_of_other_apis_are_not_interrupted() {
    let app = TestApp::start();
    app.script.hold();
    let id = app.submit(&prompt("a dog"));
    app.script.wait_for_step(1);
    for path in ["/sdapi/v1/interrupt", "/sdapi/v1/skip"] {
        assert_eq!(app.post(path, json!({})).status, 200);
    }
    app.script.open();
    let job = app.wait(&id);
    assert_eq!((&job["status"], job.get("warnings")), (&json!("COMPLETED"), None));
}

#[test]
fn a_task_is_followed_by_its_id() {
    let app = TestApp::start();
    let look =
        |id: &str| app.post("/internal/progress", json!({"id_task": id, "id_live_preview": -1})).json();
    let unknown = json!({
        "active": false, "queued": false, "completed": false, "progress": null, "eta": null, "live_preview": null,
        "id_live_preview": -1, "textinfo": null,
    });
    assert_eq!(look("task(1)"), unknown);
    while_drawing(&app, json!({"force_task_id": "task(1)", "steps": 10}), 2, || {
        let found = look("task(1)");
        assert_eq!((&found["active"], &found["queued"]), (&json!(true), &json!(false)));
        assert!((found["progress"].as_f64().unwrap() - 0.11).abs() < 1e-9, "{found}");
        app.script.allow(1);
        app.script.wait_for_step(1);
        let preview = look("task(1)")["live_preview"].as_str().unwrap().to_owned();
        assert!(preview.starts_with("data:image/png;base64,"), "{preview}");
    });
    assert_eq!(look("task(1)")["completed"], true);
}
