//! Request bodies: invalid JSON, sizes and unusual content.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, prompt};

const RUN: &str = "/v2/stable-diffusion-v1/run";
const RUNSYNC: &str = "/v2/stable-diffusion-v1/runsync";
const MIB: usize = 1024 * 1024;

fn post(target: &str, body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", target).header("Authorization", KEY).body(body)
}

#[test]
fn invalid_json_is_refused_with_its_position_but_not_its_content() {
    let app = TestApp::start();
    for (body, place) in [
        ("", "line 1 column 0"),
        ("secret", "line 1 column 1"),
        ("{\"input\": {\"prompt\": \"secret\"}}}", "line 1 column 32"),
        ("{\"input\":\n {secret", "line 2 column 3"),
        ("{\"input\": {\"prompt\": \"secret\0\"}}", "line 1 column 28"),
    ] {
        let response = post(RUN, body).send(app.port);
        let error = response.error();
        assert_eq!(response.status, 400, "{body}");
        assert!(
            error.starts_with("The request body is not valid JSON: ") && error.contains(place),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
    assert_eq!(post(RUN, [0xff, 0xfe, 0x00]).send(app.port).status, 400);
    assert_eq!(post(RUN, b"{\"input\": {\"prompt\": \"\xff\"}}".to_vec()).send(app.port).status, 400);
}

#[test]
fn a_body_that_is_not_an_object_is_refused() {
    let app = TestApp::start();
    for body in ["null", "[]", "3", "\"secret\""] {
        let response = post(RUN, body).send(app.port);
        assert_eq!(response.status, 400);
        assert_eq!(
            response.error(),
            r#"The request body should be a JSON object, such as {"input": {"prompt": "a dog"}}."#
        );
    }
}

#[test]
fn a_body_over_the_limit_is_refused_with_or_without_a_length() {
    let app = TestApp::start();
    for (target, limit) in [(RUN, 10 * MIB), (RUNSYNC, 20 * MIB)] {
        let sentence = format!("The request body is too large: this operation accepts up to {limit} bytes.");
        let large = vec![b' '; limit + 1];
        for request in [post(target, large.clone()), post(target, large).chunked()] {
            let response = request.send(app.port);
            assert_eq!((response.status, response.error()), (413, sentence.clone()));
        }
    }
    let announced = format!(
        "POST {RUN} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {KEY}\r\nContent-Length: 99999999999\r\n\r\n"
    );
    assert_eq!(crate::client::exchange(app.port, announced.as_bytes()).status, 413);
}

#[test]
fn a_body_of_exactly_the_limit_is_read() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let mut body = prompt("a dog").to_string().into_bytes();
    body.resize(10 * MIB, b' ');
    assert_eq!(post(RUN, body.clone()).send(app.port).status, 200);
    assert_eq!(post(RUN, body).chunked().send(app.port).status, 200);
}

#[test]
fn a_prompt_of_a_megabyte_is_refused() {
    let app = TestApp::start();
    let response = app.post(RUN, prompt(&"a".repeat(MIB)));
    assert_eq!(response.status, 400);
    assert_eq!(
        response.error(),
        "prompt does not meet the constraints. It has 1048576 bytes; at most 65536 are allowed."
    );
}

#[test]
fn deep_nesting_is_refused_and_the_server_keeps_running() {
    let app = TestApp::start();
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    for body in
        [deep.clone(), format!(r#"{{"input": {deep}}}"#), format!(r#"{{"input": {{"prompt": {deep}}}}}"#)]
    {
        assert_eq!(post(RUN, body).send(app.port).status, 400);
    }
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").status, 200);
}

#[test]
fn operations_without_a_body_ignore_the_body() {
    let app = TestApp::with(|config| {
        config.endpoints[0].workers = 0;
        config.http.rate_limits = stablehand::http::RateLimits::OFF;
    });
    let id = app.submit(&prompt("a dog"));
    for body in ["", "null", "{}", "not json", "\0"] {
        for operation in ["status", "cancel"] {
            let response = post(&format!("/v2/stable-diffusion-v1/{operation}/{id}"), body).send(app.port);
            assert_eq!(response.status, 200, "{operation} {body}");
        }
        assert_eq!(post("/v2/stable-diffusion-v1/purge-queue", body).send(app.port).status, 200);
    }
}

#[test]
fn a_connection_survives_an_unread_body() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let one = format!(
        "POST /v2/stable-diffusion-v1/status/{id} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\nContent-Length: 4\r\n"
    );
    let both = format!("{one}\r\nnull{one}Connection: close\r\n\r\nnull");
    let answers = crate::client::exchange_all(app.port, both.as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[test]
fn a_nul_in_a_prompt_is_echoed_unchanged() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let response = post(RUN, r#"{"input": {"prompt": "a\u0000b"}}"#).send(app.port);
    let id = response.id();
    let status = app.status(&id);
    assert_eq!(status.json()["input"], json!({"prompt": "a\0b"}));
    assert!(status.text().contains(r#""input":{"prompt": "a\u0000b"}"#));
}

#[test]
fn a_body_of_more_values_than_a_request_needs_is_refused_unread() {
    let app = TestApp::start();
    let values = format!(r#"{{"input": {{"prompt": "a", "seed": [{}0]}}}}"#, "{},".repeat(20_000));
    let response = app.post_text("/v2/stable-diffusion-v1/run", &values);
    let sentence = "The request body has more JSON values than any request needs.";
    assert_eq!((response.status, response.error()), (400, sentence.to_owned()));
    assert_eq!(app.post_text("/v1/images/generations", &values).status, 400);
    let unknown: Vec<String> = (0..5_000).map(|n| format!(r#""{n}": 1,"#)).collect();
    let unknown = unknown.concat();
    let response =
        app.post_text("/v2/stable-diffusion-v1/run", &format!(r#"{{"input": {{{unknown} "prompt": "a"}}}}"#));
    assert_eq!(response.status, 400);
    assert!(response.text().len() < 2_000, "{}", response.text().len());
    assert!(response.error().ends_with("4980 more are not valid input options."), "{}", response.error());
}

#[test]
fn a_body_is_counted_until_its_job_is_queued_and_no_longer() {
    let padding = "x".repeat(700_000);
    let mcp = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "generate_image", "arguments": {"prompt": "a dog", "steps": 1}, "_meta": {"padding": padding},
    }});
    for (target, body) in [
        ("/sdapi/v1/txt2img", json!({"prompt": "a dog", "steps": 1, "padding": padding})),
        ("/mcp", mcp),
        ("/v1/images/generations", json!({"prompt": "a dog", "steps": 1, "padding": padding})),
    ] {
        let app = TestApp::with(|config| config.http.body_memory = 1 << 20);
        app.script.hold();
        std::thread::scope(|scope| {
            let drawing = scope.spawn(|| {
                let request = post(target, body.to_string()).header("Content-Type", "application/json");
                request.header("Accept", "application/json, text/event-stream").send(app.port)
            });
            app.script.wait_for_step(1);
            let other = json!({"input": {"prompt": "a cat", "num_inference_steps": 1}, "padding": padding});
            // The step may begin before the request hears that its job is queued.
            let mut answer = post(RUN, other.to_string()).send(app.port);
            for _ in 0..100 {
                if answer.status == 200 {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
                answer = post(RUN, other.to_string()).send(app.port);
            }
            app.script.open();
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            assert_eq!(drawing.join().unwrap().status, 200, "{target}");
        });
    }
}
