//! `/run`.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, VERSIONS, prompt};

#[test]
fn run_returns_an_id_at_once_on_both_versions() {
    let app = TestApp::start();
    for version in VERSIONS {
        let response = app.post(&format!("/{version}/stable-diffusion-v1/run"), prompt("a dog"));
        assert_eq!(response.status, 200);
        let id = response.id();
        assert_eq!(response.json(), json!({"id": id, "status": "IN_QUEUE"}));
        assert_eq!((id.len(), id.starts_with("sync-")), (36, false));
    }
}

#[test]
fn a_body_is_read_as_json_with_any_content_type() {
    let app = TestApp::start();
    for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"] {
        let response = Request::new("POST", "/v2/stable-diffusion-v1/run")
            .header("Authorization", KEY)
            .header("Content-Type", content_type)
            .body(prompt("a dog").to_string())
            .send(app.port);
        assert_eq!(response.status, 200, "{content_type}");
    }
}

#[test]
fn one_error_lists_every_violation() {
    let app = TestApp::start();
    let response = app.post("/v2/stable-diffusion-v1/run", json!({"input": {"shape": 1, "num_outputs": 11}}));
    assert_eq!(response.status, 400);
    assert_eq!(
        response.error(),
        "Unexpected input. shape is not a valid input option. prompt is a required input. num_outputs does not \
         meet the constraints. It is 11; it must be a whole number from 1 to 10."
    );
}

#[test]
fn an_unsupported_field_is_refused_by_name() {
    let app = TestApp::start();
    let response = app.post("/v2/stable-diffusion-v1/run", json!({"input": {"prompt": "", "lora": "foxes"}}));
    assert_eq!(
        (response.status, response.error().as_str()),
        (
            400,
            "lora is not supported by this model, because its weights are inside its ONNX graphs; use a model with \
             .safetensors files."
        )
    );
    let body = json!({"input": {"prompt": ""}, "webhook": null, "s3Config": null, "unheard": [{}]});
    assert_eq!(app.post("/v2/stable-diffusion-v1/run", body).status, 200);
}

#[test]
fn a_full_queue_refuses_jobs_until_there_is_space() {
    let app = TestApp::with(|config| {
        config.endpoints[0].workers = 0;
        config.queue.queue_limit = 2;
    });
    for _ in 0..2 {
        assert_eq!(app.post("/v2/stable-diffusion-v1/run", prompt("a dog")).status, 200);
    }
    let refused = app.post("/v2/stable-diffusion-v1/run", prompt("a dog"));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("10")));
    assert_eq!(refused.error(), "The queue is full: 2 jobs are waiting; try again later.");
    app.post("/v2/stable-diffusion-v1/purge-queue", json!(null));
    assert_eq!(app.post("/v2/stable-diffusion-v1/run", prompt("a dog")).status, 200);
}
