//! Hugging Face's text-to-image and image-to-image: whole requests, as its clients send them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::json;
use stablehand::http::RateLimits;

use crate::arbitrary::json_text;
use crate::client::Request;
use crate::engine::Script;
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

/// The names of fields with a meaning.
const FIELDS: [&str; 11] = [
    "inputs",
    "parameters",
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "num_inference_steps",
    "guidance_scale",
    "seed",
    "strength",
    "target_size",
];

/// A JSON object; names may repeat.
fn object(first: &'static str) -> impl Strategy<Value = String> {
    let usual = select(vec![
        "null",
        "2",
        "\"64\"",
        "true",
        "-1",
        "\"a fox\"",
        "{}",
        "[]",
        "{\"width\": 64}",
        "\"data:,\"",
    ]);
    let value = prop_oneof![4 => usual.prop_map(str::to_owned), 1 => json_text()];
    let field = (select(FIELDS.to_vec()), value).prop_map(|(name, value)| format!(",\"{name}\":{value}"));
    vec(field, 0..6).prop_map(move |fields| format!("{{{first}{}}}", fields.concat()))
}

#[test]
fn every_json_body_gets_a_picture_or_a_sentence() {
    let app = TestApp::launch(|config| config.http.rate_limits = RateLimits::OFF, Script::drawing());
    let body = prop_oneof![
        4 => object("\"num_inference_steps\": 2").prop_map(|sent| format!("{{\"inputs\":\"a fox\",\"parameters\":{sent}}}")),
        2 => object("\"inputs\":\"a fox\""),
        1 => json_text(),
    ];
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&body, |body| {
            let response = keyed("POST", ROUTE).body(body.as_str()).send(app.port);
            prop_assert!(response.status < 500, "{} {:?}", body, response);
            if response.status == 200 {
                prop_assert!(response.body.starts_with(b"\x89PNG"), "{:?}", response);
            } else {
                prop_assert!(!response.error().is_empty(), "{} {:?}", body, response);
            }
            Ok(())
        })
        .unwrap();
}
