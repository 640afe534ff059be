//! `/stream`: progress, previews and pictures of a job.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Request;
use crate::helpers::{KEY, TestApp, VERSIONS, prompt};

fn steps(steps: u32) -> Value {
    json!({"input": {"prompt": "a dog", "num_inference_steps": steps}})
}

fn target(id: &str) -> String {
    format!("/v2/stable-diffusion-v1/stream/{id}")
}

/// Reads the stream once, in a separate thread.
fn reader(app: &TestApp, id: &str) -> JoinHandle<Value> {
    let (port, target) = (app.port, target(id));
    std::thread::spawn(move || Request::new("GET", &target).header("Authorization", KEY).send(port).json())
}

/// Reads as the Python client does, until a finished job has nothing more. Returns all chunks and the last body.
fn read_to_the_end(app: &TestApp, id: &str) -> (Vec<Value>, Value) {
    let mut chunks = Vec::new();
    loop {
        let body = app.get(&target(id)).json();
        assert_eq!(body.as_object().unwrap().len(), 2, "{body}");
        let stream = body["stream"].as_array().unwrap().clone();
        if stream.is_empty() && !["IN_QUEUE", "IN_PROGRESS"].contains(&body["status"].as_str().unwrap()) {
            return (chunks, body);
        }
        chunks.extend(stream);
    }
}

#[test]
fn a_stream_has_steps_previews_and_then_each_picture_once() {
    let app = TestApp::start();
    app.script.allow(1);
    let input = json!({"input": {"prompt": "a dog", "num_inference_steps": 3, "num_outputs": 2, "seed": 7}});
    let id = app.submit(&input);
    app.script.wait_for_step(2);
    let step = |step: u32| json!({"step": step, "steps": 3, "eta_ms": 0});
    assert_eq!(
        app.get(&target(&id)).json(),
        json!({"status": "IN_PROGRESS", "stream": [{"output": step(1)}]}),
        "nobody read the stream when this step was made, so it has no preview"
    );

    let held = reader(&app, &id);
    app.script.allow(1);
    let mut with_preview = step(2);
    with_preview["preview"] = json!("data:image/png;base64,wolQTkcgMg==");
    assert_eq!(held.join().unwrap(), json!({"status": "IN_PROGRESS", "stream": [{"output": with_preview}]}));

    app.script.open();
    let (chunks, last) = read_to_the_end(&app, &id);
    assert_eq!(last, json!({"status": "COMPLETED", "stream": []}));
    let output = app.status(&id).json()["output"].clone();
    let pictures: Vec<Value> = chunks
        .into_iter()
        .map(|chunk| chunk["output"].clone())
        .filter(|output| *output != step(3)) // seen only by a read between the last step and the end
        .collect();
    assert_eq!(json!(pictures), output);
    assert_eq!((&output[0]["seed"], &output[1]["seed"]), (&json!(7), &json!(8)));
}

#[test]
fn the_final_response_has_all_remaining_chunks_on_every_route() {
    let app = TestApp::start();
    for version in VERSIONS {
        for method in ["GET", "POST"] {
            let id = app.submit(&prompt("a dog"));
            app.wait(&id);
            let target = format!("/{version}/stable-diffusion-v1/stream/{id}");
            let request = |method: &str| {
                Request::new(method, &target).header("Authorization", KEY).body(Vec::new()).send(app.port)
            };
            assert_eq!(request("HEAD").status, 200, "HEAD removes nothing from the stream");
            let output = app.status(&id).json()["output"].clone();
            assert_eq!(
                request(method).json(),
                json!({"status": "COMPLETED", "stream": [{"output": output[0]}]})
            );
            assert_eq!(request(method).json(), json!({"status": "COMPLETED", "stream": []}));
        }
    }
}

#[test]
fn a_job_that_does_not_complete_ends_its_stream() {
    let app = TestApp::start();
    let failed = app.submit(&prompt("fail"));
    assert_eq!(read_to_the_end(&app, &failed), (vec![], json!({"status": "FAILED", "stream": []})));

    app.script.hold();
    let running = app.submit(&steps(9));
    app.script.wait_for_step(1);
    let begun = json!({"output": {"step": 0, "steps": 9, "eta_ms": null}});
    assert_eq!(app.get(&target(&running)).json(), json!({"status": "IN_PROGRESS", "stream": [begun]}));
    let held = reader(&app, &running);
    app.post(&format!("/v2/stable-diffusion-v1/cancel/{running}"), json!(null));
    assert_eq!(held.join().unwrap(), json!({"status": "CANCELLED", "stream": []}));

    app.script.allow(1); // the step of the cancelled job
    let mut overdue = steps(9);
    overdue["policy"] = json!({"executionTimeout": 5000});
    let overdue = app.submit(&overdue);
    app.script.wait_for_step(1);
    app.advance_ms(5_000);
    app.script.open();
    assert_eq!(read_to_the_end(&app, &overdue).1, json!({"status": "TIMED_OUT", "stream": []}));
    app.advance_ms(1_800_000);
    assert_eq!(app.get(&target(&overdue)).status, 404);
    assert_eq!(app.get(&target("c80ffee4-f315-4e25-a146-0f3d98cf024b")).status, 404);
}

#[test]
fn a_retried_job_streams_again() {
    let app = TestApp::start();
    app.script.hold();
    let mut input = steps(2);
    input["policy"] = json!({"executionTimeout": 5000});
    let id = app.submit(&input);
    app.script.wait_for_step(1);
    app.advance_ms(5_000);
    app.script.open();
    assert_eq!(read_to_the_end(&app, &id).1["status"], "TIMED_OUT");
    app.post(&format!("/v2/stable-diffusion-v1/retry/{id}"), json!(null));
    let (chunks, last) = read_to_the_end(&app, &id);
    assert_eq!(last, json!({"status": "COMPLETED", "stream": []}));
    assert!(chunks.last().unwrap()["output"]["image"].is_string(), "{chunks:?}");
}

#[test]
fn after_a_restart_the_stream_gives_the_pictures_again() {
    let mut app = TestApp::start();
    let id = app.submit(&prompt("a dog"));
    assert!(!read_to_the_end(&app, &id).0.is_empty());
    app.restart();
    let again = read_to_the_end(&app, &id).0;
    assert_eq!(again.len(), 1);
    assert!(again[0]["output"]["image"].is_string());
}

#[test]
fn previews_are_drawn_only_for_readers_and_at_most_once_a_second() {
    let app = TestApp::start();
    app.script.allow(2);
    let id = app.submit(&steps(20));
    app.script.wait_for_step(3);
    assert_eq!(app.script.previews(), 0);
    app.get(&target(&id));
    app.script.allow(3);
    app.script.wait_for_step(3);
    assert_eq!(app.script.previews(), 1);
    app.advance_ms(1_000);
    app.script.allow(3);
    app.script.wait_for_step(3);
    assert_eq!(app.script.previews(), 1);
    app.advance_ms(5_000); // nobody has read for this long
    app.script.allow(3);
    app.script.wait_for_step(3);
    assert_eq!(app.script.previews(), 0);
}

#[test]
fn a_stop_answers_readers_at_once() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let held = reader(&app, &id);
    app.get("/v2/stable-diffusion-v1/health"); // the reader has connected by now
    let start = Instant::now();
    app.stop();
    if let Ok(body) = held.join() {
        assert_eq!(body, json!({"status": "IN_QUEUE", "stream": []}));
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}
