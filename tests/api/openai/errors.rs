//! Refusals: an object with a sentence, which OpenAI's libraries show to people.

use serde_json::{Value, json};
use stablehand::http::RateLimits;

use super::{EDITS, GENERATIONS, error};
use crate::client::Request;
use crate::helpers::{TestApp, keyed, prompt};

fn refusal(message: &str, kind: &str, param: Value, code: Value) -> Value {
    json!({"message": message, "type": kind, "param": param, "code": code})
}

#[test]
fn a_bad_field_is_named() {
    let app = TestApp::start();
    let sent = |body: Value| app.post(GENERATIONS, body);
    for (body, message, param) in [
        (json!({}), "prompt is a required input.", json!("prompt")),
        (json!({"prompt": "a", "n": 11}), "n is 11; it must be from 1 to 10.", json!("n")),
        (
            json!({"prompt": "a", "size": "9000x9000"}),
            "size does not meet the constraints. It is 9000 × 9000 pixels; each side must be from 16 to 4096.",
            json!("size"),
        ),
        (
            json!({"prompt": "a", "steps": 501}),
            "steps does not meet the constraints. It is 501; it must be a whole number from 1 to 500.",
            json!("steps"),
        ),
    ] {
        let response = sent(body);
        let expected = refusal(message, "invalid_request_error", param, Value::Null);
        assert_eq!((response.status, error(&response)), (400, expected));
    }
    let response = app.post_text(GENERATIONS, "[1]");
    assert_eq!(response.status, 400);
    assert!(
        error(&response)["message"].as_str().unwrap().starts_with("The request body should be a JSON object")
    );
}

#[test]
fn a_missing_or_wrong_key_is_401_in_the_surfaces_form() {
    let app = TestApp::start();
    for (method, target) in
        [("POST", GENERATIONS), ("POST", EDITS), ("GET", "/v1/models"), ("GET", "/models/a")]
    {
        for authorization in ["Bearer wrong", "", "Basic"] {
            let request = Request::new(method, target).header("Authorization", authorization);
            let response = request.send(app.port);
            assert_eq!(response.status, 401, "{target}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
            let message = "No valid API key: send one as `Authorization: Bearer KEY`.";
            let expected = refusal(message, "invalid_request_error", Value::Null, json!("invalid_api_key"));
            assert_eq!(error(&response), expected);
        }
    }
}

#[test]
fn keys_are_accepted_in_the_forms_of_azure_and_basic() {
    let app = TestApp::start();
    // `first-key` as password, and as user name.
    for (name, value) in [
        ("api-key", "first-key"),
        ("Authorization", "Basic bWU6Zmlyc3Qta2V5"),
        ("Authorization", "Basic Zmlyc3Qta2V5Og=="),
    ] {
        let response = Request::new("GET", "/v1/models").header(name, value).send(app.port);
        assert_eq!(response.status, 200, "{value}");
    }
}

#[test]
fn a_job_that_failed_is_not_to_be_sent_again() {
    let app = TestApp::start();
    let response = app.post(GENERATIONS, json!({"prompt": "fail"}));
    assert_eq!((response.status, response.header("x-should-retry")), (500, Some("false")));
    let expected =
        refusal("The model failed: The script says no.", "server_error", Value::Null, json!("job_failed"));
    assert_eq!(error(&response), expected);
    super::wait_until_forgotten(&app);
}

#[test]
fn a_job_that_someone_cancels_or_deletes_ends_its_request() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for (end, message) in [
        ("cancel", "The job was cancelled on the server."),
        ("purge-queue", "The job was deleted on the server before it was drawn."),
    ] {
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| app.post(GENERATIONS, json!({"prompt": "a dog"})));
            let id = loop {
                let requests = app.get("/v2/stable-diffusion-v1/requests?status=IN_QUEUE").json();
                if let Some(id) = requests["requests"][0]["id"].as_str() {
                    break id.to_owned();
                }
                std::thread::sleep(std::time::Duration::from_millis(300));
            };
            let path = if end == "cancel" { format!("cancel/{id}") } else { end.to_owned() };
            app.post(&format!("/v2/stable-diffusion-v1/{path}"), Value::Null);
            let response = sent.join().unwrap();
            assert_eq!((response.status, response.header("x-should-retry")), (500, Some("false")));
            assert_eq!(error(&response)["message"], message);
        });
    }
}

#[test]
fn limits_are_429_with_the_time_to_wait() {
    let app = TestApp::with(|config| {
        config.http.rate_limits = "runsync=1".parse().unwrap();
        config.endpoints[0].workers = 0;
        config.queue.queue_limit = 1;
    });
    app.submit(&prompt("a dog"));
    let full = app.post(GENERATIONS, json!({"prompt": "a dog"}));
    assert_eq!((full.status, full.header("retry-after")), (429, Some("10")));
    let message = "The queue is full: 1 jobs are waiting; try again later.";
    let expected = refusal(message, "rate_limit_error", Value::Null, json!("rate_limit_exceeded"));
    assert_eq!(error(&full), expected);
    // Native requests count against the same limit.
    let often = app.post(GENERATIONS, json!({"prompt": "a dog"}));
    assert_eq!((often.status, often.header("retry-after")), (429, Some("10")));
    assert!(
        error(&often)["message"].as_str().unwrap().starts_with("Too many runsync requests: the limit is 1")
    );
    assert_eq!(app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog")).status, 429);
}

#[test]
fn wrong_methods_and_unknown_operations_are_json_too() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    let response = app.get(GENERATIONS);
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    assert_eq!(error(&response)["message"], "This route accepts POST.");
    for target in ["/v1/images/variations", "/images/anything", "/v1/images/a/b"] {
        let response = keyed("POST", target).send(app.port);
        assert_eq!(
            (response.status, &error(&response)["message"]),
            (404, &json!("No such route.")),
            "{target}"
        );
    }
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let app = TestApp::start();
    let body = format!(r#"{{"prompt": "a dog", "user": "{}"}}"#, "a".repeat(10 << 20));
    let response = app.post_text(GENERATIONS, &body);
    assert_eq!((response.status, &error(&response)["type"]), (413, &json!("invalid_request_error")));
}

#[test]
fn a_server_that_stops_answers_503_and_leaves_no_job_behind() {
    let mut app = TestApp::start();
    app.script.hold();
    let port = app.port;
    let sent =
        std::thread::spawn(move || keyed("POST", GENERATIONS).body(r#"{"prompt": "a dog"}"#).send(port));
    app.script.wait_for_step(1);
    app.begin_to_stop();
    let response = sent.join().unwrap();
    assert_eq!((response.status, response.header("retry-after")), (503, Some("2")));
    assert_eq!(error(&response)["message"], "The server is stopping; try again later.");
    app.script.open();
    app.restart();
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inQueue"], 0);
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["completed"], 0);
}
