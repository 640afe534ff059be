//! `/library`, where clients may only look. What a pull, a check and a removal do is in `tests/process/hub`.

use serde_json::{Value, json};
use stablehand::config::Access;

use crate::client::Request;
use crate::helpers::{TestApp, VERSIONS, keyed};

#[test]
fn the_library_lists_what_is_here_and_says_that_nothing_may_change() {
    let app = TestApp::with(|config| {
        std::fs::create_dir_all(&config.models_dir).unwrap();
        std::fs::write(config.models_dir.join("dream.safetensors"), b"abc").unwrap();
    });
    for version in VERSIONS {
        let library = app.get(&format!("/{version}/library")).json();
        assert_eq!((&library["may_change"], &library["task"]), (&json!(false), &Value::Null));
        let items = library["items"].as_array().unwrap();
        let item = |name: &str| items.iter().find(|item| item["name"] == name).unwrap();
        assert_eq!(item("tiny-sd")["place"], "binary");
        assert_eq!(
            item("dream.safetensors"),
            &json!({
                "kind": "model", "name": "dream.safetensors", "form": "file", "bytes": 3, "place": "copied",
                "pulled_at": null, "endpoints": [],
            })
        );
    }
    let refusal = "This server does not let clients change its models: start it with --manage-models on.";
    for what in ["pull", "check", "remove", "tasks/1/cancel"] {
        let response = app.post(&format!("/v2/library/{what}"), json!({"name": "tiny-sd"}));
        assert_eq!((response.status, response.error().as_str()), (403, refusal), "{what}");
    }
    let response = app.get("/v2/library/tasks/1");
    assert_eq!(response.status, 404);
    assert_eq!(response.error(), "No such task: it never existed, or the server has restarted since.");
}

#[test]
fn a_body_is_small_and_exact() {
    let app = TestApp::with(|config| config.manage_models = true);
    let no_object = r#"The request body should be a JSON object, such as {"name": "ORG/NAME"}."#;
    for (body, error) in [
        ("", no_object),
        ("[]", no_object),
        ("null", no_object),
        ("{\"name\": \"a/b\"", no_object),
        ("\u{0}", no_object),
        ("{}", "name is a required input."),
        (r#"{"name": null}"#, "name is a required input."),
        (r#"{"name": 1}"#, "name should be text."),
        (
            r#"{"name": "a/b", "other": 1}"#,
            "Unexpected input. other is not a valid input option; this takes ",
        ),
    ] {
        for what in ["pull", "check", "remove"] {
            let response = app.post_text(&format!("/v2/library/{what}"), body);
            assert_eq!(response.status, 400, "{what} {body}");
            assert!(response.error().starts_with(error), "{what} {body}: {}", response.error());
        }
    }
    for (body, error) in [
        (
            json!({"name": "a/b", "kind": "vae"}),
            "kind does not meet the constraints. It must be one of model, controlnet, lora, upscaler.",
        ),
        (json!({"name": "a/b", "sha256": 1}), "sha256 should be text."),
    ] {
        assert_eq!(app.post("/v2/library/pull", body).error(), error);
    }
    let response = app.post("/v2/library/check", json!({"name": "a/b", "kind": "model"}));
    assert_eq!(response.error(), "Unexpected input. kind is not a valid input option; this takes name.");
    let long = json!({"name": "a".repeat(20_000)}).to_string();
    assert_eq!(app.post_text("/v2/library/pull", &long).status, 413);
    assert_eq!(app.get("/v2/library").json()["task"], Value::Null);
}

#[test]
fn pages_of_other_sites_change_nothing_where_no_key_is_needed() {
    let app = TestApp::with(|config| {
        config.access = Access::Everybody;
        config.manage_models = true;
    });
    let pull = |origin: &str| {
        Request::new("POST", "/v2/library/pull")
            .header("Origin", origin)
            .header("Content-Type", "text/plain")
            .body(r#"{"name": "no name"}"#)
            .send(app.port)
            .status
    };
    assert_eq!(pull("https://evil.example"), 403);
    assert_eq!(pull(&format!("http://127.0.0.1:{}", app.port)), 400);
}

#[test]
fn wrong_methods_are_refused_with_the_right_ones() {
    let app = TestApp::start();
    for (method, target, allowed) in [
        ("POST", "/v2/library", "GET, HEAD"),
        ("GET", "/v2/library/pull", "POST"),
        ("DELETE", "/v2/library/remove", "POST"),
    ] {
        let response = keyed(method, target).send(app.port);
        assert_eq!((response.status, response.header("allow")), (405, Some(allowed)), "{method} {target}");
    }
}
