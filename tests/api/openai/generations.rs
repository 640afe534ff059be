//! `POST /v1/images/generations`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};
use stablehand::http::RateLimits;

use super::{GENERATIONS, SCRIPTED, wait_until_forgotten, with_input};
use crate::client::Request;
use crate::helpers::{KEY, TestApp, endpoint, keyed};

fn usage() -> Value {
    json!({
        "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    })
}

/// The fields of each item of `data`.
fn item_fields(body: &Value) -> Vec<BTreeSet<String>> {
    let items = body["data"].as_array().unwrap();
    items.iter().map(|item| item.as_object().unwrap().keys().cloned().collect()).collect()
}

#[test]
fn a_picture_is_answered_in_base64() {
    let app = TestApp::start();
    let response = app.post(
        GENERATIONS,
        json!({"model": "gpt-image-1", "prompt": "a dog", "n": 2, "size": "512x512", "quality": "medium"}),
    );
    assert_eq!(response.status, 200);
    let expected = json!({
        "created": 1_700_000_000, "data": [{"b64_json": SCRIPTED}, {"b64_json": SCRIPTED}], "size": "512x512",
        "quality": "medium", "background": "opaque", "output_format": "png", "usage": usage(),
    });
    assert_eq!(response.json(), expected);
}

#[test]
fn the_form_of_the_answer_follows_response_format_and_the_models_name() {
    let app = TestApp::start();
    let (both, base64, url) = (["b64_json", "url"].as_slice(), ["b64_json"].as_slice(), ["url"].as_slice());
    for (fields, expected) in [
        (json!({}), both),
        (json!({"model": "stable-diffusion-v1"}), both),
        (json!({"model": "gpt-image-1"}), base64),
        (json!({"model": "dall-e-2"}), url),
        (json!({"model": "dall-e-2", "response_format": "b64_json"}), base64),
        (json!({"model": "gpt-image-1", "response_format": "url"}), url),
    ] {
        let mut body = json!({"prompt": "a dog"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = app.post(GENERATIONS, body).json();
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(item_fields(&answer), [expected], "{fields}");
    }
}

#[test]
fn a_url_needs_no_key_and_lives_as_long_as_a_job_of_run() {
    let app = TestApp::start();
    let body = app.post(GENERATIONS, json!({"prompt": "a dog", "response_format": "url"})).json();
    let url = body["data"][0]["url"].as_str().unwrap();
    let target = url.strip_prefix(&format!("http://127.0.0.1:{}", app.port)).unwrap();
    let get = || Request::new("GET", target).send(app.port);
    assert_eq!((get().status, get().body), (200, b"\x89PNG scripted".to_vec()));
    app.advance_ms(30 * 60_000 - 1);
    assert_eq!(get().status, 200);
    app.advance_ms(1);
    assert_eq!(get().status, 404);
}

#[test]
fn what_was_answered_in_base64_is_forgotten_at_once() {
    let app = TestApp::start();
    let answer = app.post(GENERATIONS, json!({"prompt": "a dog", "response_format": "b64_json", "n": 3}));
    assert_eq!(answer.status, 200);
    wait_until_forgotten(&app);
    assert_eq!(app.get("/v2/stable-diffusion-v1/requests").json()["requests"], json!([]));
}

#[test]
fn a_picture_does_not_expire_while_it_is_answered() {
    // The shortest time that results can be kept for: none.
    let app = TestApp::with(|config| config.queue.sync_retention = std::time::Duration::ZERO);
    let answer = app.post(GENERATIONS, json!({"prompt": "a dog", "response_format": "b64_json"}));
    assert_eq!(answer.json()["data"], json!([{"b64_json": SCRIPTED}]));
    wait_until_forgotten(&app);
}

#[test]
fn warnings_are_answered_beside_the_pictures() {
    let app = TestApp::start();
    let warnings = json!(["The script has no \"ink\"."]);
    for form in ["b64_json", "url"] {
        let ask = |prompt: &str| {
            app.post(
                GENERATIONS,
                json!({"prompt": prompt, "seed": 1, "nsfw": false, "response_format": form}),
            )
            .json()
        };
        assert_eq!(ask("warn")["warnings"], warnings);
        assert!(ask("a dog").get("warnings").is_none());
    }
}

#[test]
fn the_job_is_an_ordinary_one_with_an_ordinary_input() {
    let app = TestApp::start();
    let (response, input) = with_input(&app, || {
        let body = json!({
            "model": "dall-e-3", "prompt": "a dog", "n": "1", "size": "auto", "style": "vivid", "quality": "low",
            "negative_prompt": "cats", "cfg": "4.5", "sampler": "Euler a", "seed": -1, "user": "someone",
            "background": "transparent", "moderation": "low", "auth": "user:password", "partial_images": null,
        });
        app.post(GENERATIONS, body)
    });
    assert_eq!(response.status, 200);
    let expected = json!({
        "prompt": "a dog", "num_outputs": 1, "width": 512, "height": 512, "num_inference_steps": 15,
        "negative_prompt": "cats", "guidance_scale": 4.5, "scheduler": "Euler a",
    });
    assert_eq!(input, expected);
}

#[test]
fn a_body_is_json_whatever_its_type_says_and_every_prefix_is_served() {
    let app = TestApp::start();
    for prefix in ["", "/v1", "/v2", "//v1"] {
        let target = format!("{prefix}/images/generations/?api-version=2025-04-01-preview");
        for kind in ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"] {
            let request = keyed("POST", &target).header("Content-Type", kind).body(r#"{"prompt": "a dog"}"#);
            assert_eq!(request.send(app.port).status, 200, "{target} {kind}");
        }
        let request = keyed("POST", &target).body(r#"{"prompt": "a dog"}"#);
        assert_eq!(request.send(app.port).status, 200, "{target}");
    }
}

#[test]
fn options_is_answered_without_a_key() {
    let app = TestApp::start();
    let response = Request::new("OPTIONS", GENERATIONS).send(app.port);
    assert_eq!((response.status, response.body.len()), (204, 0));
}

#[test]
fn the_model_chooses_the_endpoint() {
    let app = TestApp::with(|config| {
        // Jobs of the first endpoint would wait for ever.
        config.endpoints = vec![endpoint("first", 0), endpoint("second", 1)];
    });
    let body = json!({"prompt": "a dog", "model": "second", "response_format": "url"});
    let url = app.post(GENERATIONS, body).json()["data"][0]["url"].as_str().unwrap().to_owned();
    assert!(url.contains("/v2/second/images/"), "{url}");
}

#[test]
fn flagged_pictures_are_left_out_and_without_any_the_request_is_refused() {
    let app = TestApp::start();
    let draw = |n: u32, seed: u32| {
        app.post(
            GENERATIONS,
            json!({"prompt": "a dog", "n": n, "seed": seed, "nsfw": false, "response_format": "b64_json"}),
        )
    };
    assert_eq!(draw(2, 1).json()["data"], json!([{"b64_json": SCRIPTED}]));
    let refused = draw(1, 2);
    let expected = json!({
        "message": "The safety checker withheld every picture of this prompt.", "type": "invalid_request_error",
        "param": "prompt", "code": "moderation_blocked",
    });
    assert_eq!((refused.status, super::error(&refused)), (400, expected));
    wait_until_forgotten(&app);
}

/// Sends a request and returns its connection, once the engine works on its job.
fn begun(app: &TestApp, extra: &str) -> TcpStream {
    app.script.hold();
    let body = format!(r#"{{"prompt": "a dog"{extra}}}"#);
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    write!(
        stream,
        "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    app.script.wait_for_step(1);
    stream
}

#[test]
fn a_client_that_closes_its_connection_cancels_its_job() {
    let app = TestApp::start();
    for extra in ["", r#", "stream": true"#, r#", "stream": true, "partial_images": 3"#] {
        let connection = begun(&app, extra);
        drop(connection);
        // The cancelled job is forgotten at once, while the engine is still in its step.
        wait_until_forgotten(&app);
        app.script.open();
        // The worker is free for the next client.
        while app.get("/v2/stable-diffusion-v1/health").json()["workers"]["idle"] != 1 {
            std::thread::yield_now();
        }
    }
    assert_eq!(app.post(GENERATIONS, json!({"prompt": "a dog"})).status, 200);
}

#[test]
fn a_job_that_waits_is_cancelled_too() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let body = r#"{"prompt": "a dog"}"#;
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    write!(
        stream,
        "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    while app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inQueue"] != 1 {
        std::thread::yield_now();
    }
    drop(stream);
    wait_until_forgotten(&app);
}

#[test]
fn metrics_count_jobs_by_the_api_they_came_through() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    app.post(GENERATIONS, json!({"prompt": "a dog"}));
    app.submit(&crate::helpers::prompt("a dog"));
    app.submit(&crate::helpers::prompt("a dog"));
    let response = app.get("/metrics");
    for line in [
        r#"stablehand_jobs_submitted_total{surface="openai",endpoint="stable-diffusion-v1"} 1"#,
        r#"stablehand_jobs_submitted_total{surface="native",endpoint="stable-diffusion-v1"} 2"#,
        r#"stablehand_requests_total{route="/v1/images/generations",method="POST",code="200"} 1"#,
    ] {
        assert!(response.text().lines().any(|found| found == line), "{line}\n{}", response.text());
    }
}
