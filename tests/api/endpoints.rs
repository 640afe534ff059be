//! Several endpoints in one server: their jobs, workers and models.

use serde_json::json;

use crate::engine::Script;
use crate::helpers::{TestApp, endpoint, prompt};

#[test]
fn each_endpoint_has_its_own_jobs_and_workers() {
    let app = TestApp::with(|config| config.endpoints = vec![endpoint("first", 1), endpoint("second", 0)]);
    let submit = |endpoint: &str| {
        let body = app.post(&format!("/v2/{endpoint}/run"), prompt("a dog")).json();
        body["id"].as_str().unwrap().to_owned()
    };
    let (waits, done) = (submit("second"), submit("first"));
    assert_eq!(app.get(&format!("/v2/first/status-sync/{done}")).json()["status"], "COMPLETED");
    assert_eq!(app.get(&format!("/v2/second/status/{waits}")).json()["status"], "IN_QUEUE");
    assert_eq!(app.get(&format!("/v2/first/status/{waits}")).status, 404);
    assert_eq!(app.get(&format!("/v2/second/stream/{done}")).status, 404);
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").error(), "No such endpoint on this server.");

    let jobs = |completed: u32, queued: u32| json!({"completed": completed, "failed": 0, "inProgress": 0, "inQueue": queued, "retried": 0});
    let (first, second) = (app.get("/v2/first/health").json(), app.get("/v2/second/health").json());
    assert_eq!((&first["jobs"], &second["jobs"]), (&jobs(1, 0), &jobs(0, 1)));
    assert_eq!(first["workers"]["ready"], 1);
    let nobody = json!({"idle": 0, "initializing": 0, "ready": 0, "running": 0, "throttled": 0});
    assert_eq!(second["workers"], nobody);
}

#[test]
fn jobs_of_a_removed_endpoint_wait_until_it_comes_back() {
    let mut app =
        TestApp::with(|config| config.endpoints = vec![endpoint("first", 1), endpoint("second", 0)]);
    let id = app.post("/v2/second/run", prompt("a dog")).id();
    app.configure(|config| config.endpoints = vec![endpoint("first", 1)]);
    app.restart();
    assert_eq!(app.get(&format!("/v2/second/status/{id}")).status, 404);
    app.post("/v2/first/runsync", prompt("a cat"));
    app.configure(|config| config.endpoints = vec![endpoint("second", 1)]);
    app.restart();
    assert_eq!(app.get(&format!("/v2/second/status-sync/{id}")).json()["status"], "COMPLETED");
}

fn two() -> Vec<stablehand::config::EndpointConfig> {
    vec![endpoint("first", 1), endpoint("second", 1)]
}

#[test]
fn two_models_take_turns_if_memory_fits_only_one() {
    let app = TestApp::launch(|config| config.endpoints = two(), Script::with_room_for(1));
    for name in ["first", "second", "second", "first"] {
        let body = app.post(&format!("/v2/{name}/runsync"), prompt("a dog")).json();
        assert_eq!(body["status"], "COMPLETED", "{body}");
    }
    app.script.hold();
    let run = |name: &str| {
        let body = app.post(&format!("/v2/{name}/run"), prompt("a dog")).json();
        body["id"].as_str().unwrap().to_owned()
    };
    let drawn = run("first");
    app.script.wait_for_step(1);
    let waits = run("second");
    let workers = || app.get("/v2/second/health").json()["workers"].clone();
    while workers()["throttled"] != 1 {
        std::thread::yield_now(); // the worker needs a moment in its thread
    }
    assert_eq!(app.get(&format!("/v2/second/status/{waits}")).json()["status"], "IN_QUEUE");
    app.script.open();
    for (name, id) in [("first", drawn), ("second", waits)] {
        let body = app.get(&format!("/v2/{name}/status-sync/{id}")).json();
        assert_eq!(body["status"], "COMPLETED", "{body}");
    }
}

#[test]
fn a_broken_model_among_several_fails_its_jobs_but_not_the_server() {
    let app = TestApp::launch(|config| config.endpoints = two(), Script::broken("The unet is damaged."));
    let body = app.post("/v2/first/runsync", prompt("a dog")).json();
    assert_eq!((&body["status"], &body["error"]), (&json!("FAILED"), &json!("The unet is damaged.")));
}

#[test]
fn without_preload_a_model_loads_for_its_first_job() {
    let app = TestApp::launch(|config| config.endpoints[0].preload = false, Script::slow_to_start());
    let workers = || app.get("/v2/stable-diffusion-v1/health").json()["workers"].clone();
    while workers()["idle"] != 1 {
        std::thread::yield_now(); // the worker's thread is just starting
    }
    let id = app.submit(&prompt("a dog"));
    while workers()["initializing"] != 1 {
        std::thread::yield_now();
    }
    app.script.open();
    assert_eq!(app.wait(&id)["status"], "COMPLETED");
}
