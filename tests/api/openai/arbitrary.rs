//! Random JSON and forms: each gets an answer in the surface's form, and never a 5xx.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use stablehand::http::RateLimits;

use super::forms::TestForm;
use super::{EDITS, GENERATIONS, error};
use crate::arbitrary::json_text;
use crate::client::Response;
use crate::engine::Script;
use crate::helpers::{TestApp, keyed};

const CASES: u32 = 600;

/// The names of fields with a meaning.
const FIELDS: [&str; 24] = [
    "prompt",
    "model",
    "n",
    "size",
    "width",
    "height",
    "response_format",
    "quality",
    "output_format",
    "output_compression",
    "stream",
    "partial_images",
    "negative_prompt",
    "seed",
    "steps",
    "cfg",
    "sampler",
    "karras",
    "spacing",
    "eta",
    "image",
    "images",
    "mask",
    "strength",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => select(FIELDS.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// A value that often passes, as JSON text.
fn value() -> impl Strategy<Value = String> {
    let usual = select(vec![
        "null",
        "1",
        "\"2\"",
        "true",
        "\"false\"",
        "\"png\"",
        "\"webp\"",
        "\"url\"",
        "\"640x300\"",
        "\"auto\"",
        "\"a dog\"",
        "0.5",
        "\"low\"",
        "-1",
        "\"1e3\"",
        "[\"a\"]",
        "{\"image_url\": \"data:,\"}",
    ]);
    prop_oneof![3 => usual.prop_map(str::to_owned), 1 => json_text()]
}

/// A JSON object; names may repeat.
fn object() -> impl Strategy<Value = String> {
    vec((name(), value()), 0..8).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        format!(
            "{{\"prompt\": \"a dog\", \"steps\": 2{}{}}}",
            if fields.is_empty() { "" } else { "," },
            fields.join(",")
        )
    })
}

fn assert_in_form(response: &Response) -> Result<(), TestCaseError> {
    prop_assert!(response.status < 500, "{:?}", response);
    if response.status >= 400 {
        error(response); // checks the whole body
    } else if response.header("content-type") == Some("application/json") {
        prop_assert!(response.json()["data"].is_array(), "{:?}", response);
    }
    Ok(())
}

fn app() -> TestApp {
    TestApp::launch(|config| config.http.rate_limits = RateLimits::OFF, Script::drawing())
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn every_json_body_gets_an_answer_in_the_surfaces_form() {
    let app = app();
    let body = prop_oneof![4 => object(), 1 => json_text()];
    runner()
        .run(&(select(vec![GENERATIONS, EDITS]), body), |(target, body)| {
            assert_in_form(&keyed("POST", target).body(body).send(app.port))
        })
        .unwrap();
}

#[test]
fn every_form_gets_an_answer_in_the_surfaces_form() {
    let app = app();
    let part = (
        any::<bool>(),
        name(),
        prop_oneof![value().prop_map(String::into_bytes), vec(any::<u8>(), 0..300), Just(PICTURE.to_vec()),],
    );
    let mangled = prop_oneof![3 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    runner()
        .run(&(vec(part, 0..8), any::<bool>(), mangled), |(parts, whole, mangled)| {
            let mut form = TestForm::default();
            if whole {
                form = form.text("prompt", "a dog").text("steps", "2").file("image", "a", &PICTURE);
            }
            for (is_file, name, bytes) in &parts {
                let plain: String = name.chars().filter(|c| !matches!(c, '"' | '\r' | '\n')).collect();
                form = if *is_file {
                    form.file(&plain, "a", bytes)
                } else {
                    form.text(&plain, &String::from_utf8_lossy(bytes))
                };
            }
            let request = form.request(EDITS);
            let request = match mangled {
                None => request,
                Some(at) => request.cut(at),
            };
            assert_in_form(&request.send(app.port))
        })
        .unwrap();
    assert_eq!(app.get("/v1/models").json()["object"], Value::from("list"));
}

/// A PNG file of one transparent pixel.
const PICTURE: [u8; 70] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52, 0, 0, 0, 1, 0, 0, 0,
    1, 8, 6, 0, 0, 0, 0x1f, 0x15, 0xc4, 0x89, 0, 0, 0, 0x0d, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x64,
    0xf8, 0xcf, 0x50, 0x0f, 0, 0x03, 0x86, 0x01, 0x80, 0x5a, 0x34, 0x7d, 0x6b, 0, 0, 0, 0, 0x49, 0x45, 0x4e,
    0x44, 0xae, 0x42, 0x60, 0x82,
];
