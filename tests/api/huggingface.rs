//! Hugging Face's text-to-image and image-to-image: whole requests, as its clients send them.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{TestApp, keyed};

const ROUTE: &str = "/huggingface";

#[test]
fn the_answer_is_the_picture_and_the_job_is_forgotten() {
    let app = TestApp::start();
    for target in ["/huggingface", "/v2/huggingface", "/huggingface/models/stable-diffusion-v1"] {
        let response = app.post(target, json!({"inputs": "a fox", "parameters": {"seed": 7}}));
        assert_eq!((response.status, response.header("content-type")), (200, Some("image/png")), "{target}");
        assert!(response.body.starts_with(b"\x89PNG"), "{response:?}");
    }
    let jobs = || app.get("/v2/stable-diffusion-v1/health").json()["jobs"].clone();
    while jobs().as_object().unwrap().values().any(|count| count.as_u64() != Some(0)) {
        std::thread::yield_now();
    }
}

#[test]
fn refusals_are_objects_with_one_sentence() {
    let app = TestApp::start();
    for (body, status, sentence) in [
        (json!({}), 400, "prompt is a required input."),
        (json!([]), 400, "The request body should be a JSON object"),
        (
            json!({"inputs": "a", "parameters": {"num_inference_steps": 0}}),
            400,
            "num_inference_steps does not meet",
        ),
        (
            json!({"inputs": "no picture", "parameters": {"prompt": "a"}}),
            400,
            "inputs does not meet the constraints.",
        ),
    ] {
        let response = app.post(ROUTE, body.clone());
        assert_eq!(response.status, status, "{body}");
        assert_eq!(response.json().as_object().unwrap().len(), 1);
        assert!(response.error().starts_with(sentence), "{body}: {}", response.error());
    }
    let response = app.post("/huggingface/none/such", json!({"inputs": "a"}));
    assert_eq!(
        (response.status, response.error().as_str()),
        (404, "The model none/such is not here: this server has stable-diffusion-v1.")
    );
    let response = keyed("GET", ROUTE).send(app.port);
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    assert_eq!(Request::new("POST", ROUTE).send(app.port).status, 401);
}
