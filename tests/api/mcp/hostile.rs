//! What a hostile client sends.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use stablehand::http::RateLimits;

use super::{Answer, ENDPOINT, begin, call, initialize, posted, request};
use crate::arbitrary::json_text;
use crate::engine::Script;
use crate::helpers::{TestApp, keyed};

#[test]
fn what_is_no_message_is_refused_without_repeating_it() {
    let app = TestApp::start();
    for body in [
        "",
        "secret",
        "\"secret\"",
        "{\"secret\"",
        "[]",
        "[{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"ping\"}]",
        "{}",
        "{\"jsonrpc\": \"2.0\"}",
        "{\"id\": 1, \"method\": \"ping\"}",
        "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"tools/call\", \"params\": [\"secret\"]}",
        &"[".repeat(100_000),
        &format!("{{\"a\":{}", "[".repeat(100_000)),
    ] {
        let response = posted(body).send(app.port);
        assert!((400..500).contains(&response.status), "{body:.80}: {response:?}");
        assert!(!response.text().contains("secret"), "{body:.80}: {}", response.text());
    }
    let response = posted("[]").send(app.port);
    let error = json!({"code": -32600, "message": "Send one message at a time: lists are not accepted."});
    assert_eq!(response.json(), json!({"jsonrpc": "2.0", "id": null, "error": error}));
}

#[test]
fn methods_that_are_not_there_are_named_as_such() {
    let app = TestApp::start();
    for method in ["resources/list", "prompts/list", "sampling/createMessage", "tools/nothing", "\u{0}"] {
        let answer = super::ask(&app, &request(1, method, json!({})));
        let is_empty =
            answer["result"].as_object().is_some_and(|result| result.values().all(|list| *list == json!([])));
        assert!(answer["error"]["code"] == -32601 || is_empty, "{method}: {answer}");
    }
}

#[test]
fn a_body_beyond_the_limit_is_refused() {
    let app = TestApp::start();
    let image = "A".repeat(21 << 20);
    let response =
        posted(call(1, "edit_image", json!({"prompt": "a", "image": image})).to_string()).send(app.port);
    assert_eq!(response.status, 413);
}

#[test]
fn two_thousand_sessions_leave_the_server_as_it_was() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    let first = begin(&app);
    let body = initialize("2025-06-18").to_string();
    for _ in 0..2000 {
        assert_eq!(posted(body.clone()).send(app.port).status, 200);
    }
    let ping = |session: &str| {
        posted(request(1, "ping", json!({})).to_string())
            .header("Mcp-Session-Id", session)
            .send(app.port)
            .status
    };
    assert_eq!((ping(&first), ping(&begin(&app))), (404, 200));
}

#[test]
fn one_id_cannot_be_used_twice_at_the_same_time() {
    let app = TestApp::start();
    let session = begin(&app);
    let headers = [("Mcp-Session-Id", session.as_str())];
    app.script.hold();
    let waiting = Answer::open(&app, &call(1, "generate_image", json!({"prompt": "a"})), &headers);
    let second =
        posted(request(1, "ping", json!({})).to_string()).header("Mcp-Session-Id", &session).send(app.port);
    assert_eq!((second.status, &second.json()["error"]["code"]), (400, &json!(-32600)));
    drop(waiting);
    app.script.open();
}

#[test]
fn limits_and_stops_are_told_in_the_form_of_the_protocol() {
    let app = TestApp::with(|config| config.http.rate_limits = "runsync=1".parse().unwrap());
    let ping = || posted(request(1, "ping", json!({})).to_string()).send(app.port);
    assert_eq!(ping().status, 200);
    let refused = ping();
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true));
    assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with("Too many runsync requests"));
    assert_eq!(keyed("PUT", ENDPOINT).send(app.port).status, 405);
}

/// A value that often passes, as JSON text.
fn value() -> impl Strategy<Value = String> {
    let usual = select(vec![
        "null",
        "1",
        "\"2\"",
        "true",
        "-1",
        "1e300",
        "\"a fox\"",
        "\"tools/call\"",
        "\"initialize\"",
        "\"tools/list\"",
        "\"generate_image\"",
        "\"edit_image\"",
        "\"get_job\"",
        "{}",
        "[]",
        "\"2.0\"",
        "\"2025-06-18\"",
        "\"notifications/cancelled\"",
        "\"sync-0199f6d2-8a3c-7c11-9d8e-2f6b1a4c5d6e\"",
    ]);
    prop_oneof![4 => usual.prop_map(str::to_owned), 1 => json_text()]
}

fn object(names: Vec<&'static str>) -> impl Strategy<Value = String> {
    let field = (select(names), value()).prop_map(|(name, value)| format!("{}:{value}", json!(name)));
    proptest::collection::vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(",")))
}

#[test]
fn random_messages_get_an_answer_and_never_a_5xx() {
    let app = TestApp::launch(|config| config.http.rate_limits = RateLimits::OFF, Script::drawing());
    let arguments = object(vec![
        "prompt",
        "steps",
        "count",
        "width",
        "height",
        "seed",
        "image",
        "job_id",
        "wait_seconds",
        "format",
        "model",
        "scale",
        "upscaler",
    ]);
    let method = select(vec![
        "initialize",
        "tools/call",
        "tools/list",
        "ping",
        "notifications/cancelled",
        "server/discover",
        "x",
    ]);
    let tool = select(vec!["generate_image", "edit_image", "upscale_image", "get_job", "cancel_job", "x"]);
    let params = prop_oneof![
        3 => (tool, arguments).prop_map(|(tool, arguments)| format!("{{\"name\":\"{tool}\",\"arguments\":{arguments}}}")),
        1 => object(vec!["name", "arguments", "_meta", "protocolVersion", "capabilities", "clientInfo", "requestId", "cursor"]),
        1 => value(),
    ];
    let message = (method, value(), params).prop_map(|(method, id, params)| {
        format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\",\"id\":{id},\"params\":{params}}}")
    });
    let any = prop_oneof![6 => message, 1 => object(vec!["jsonrpc", "id", "method", "params", "result", "error"]), 1 => json_text()];
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&any, |body| {
            let response = posted(body.clone()).send(app.port);
            prop_assert!(response.status < 500, "{body}: {response:?}");
            Ok(())
        })
        .unwrap();
    let answer: Value = super::ask(&app, &request(1, "ping", json!({})));
    assert_eq!(answer["result"], json!({}));
}
