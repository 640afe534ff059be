//! Refusals and authentication.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{TXT2IMG, sentence, txt2img};
use crate::client::Request;
use crate::helpers::{KEY, TestApp, keyed};

#[test]
fn a_field_that_is_not_valid_is_named_as_it_was_sent() {
    let app = TestApp::start();
    for (fields, field, expected) in [
        (json!({"steps": 0}), "steps", "steps does not meet the constraints. It is 0;"),
        (json!({"steps": "many"}), "steps", "steps should be a whole number."),
        (json!({"prompt": {}}), "prompt", "prompt should be text."),
        (json!({"seed": -2}), "seed", "seed is -2; it must be at least 0, or -1 for a random one."),
        (json!({"n_iter": 0}), "n_iter", "n_iter is 0; it must be from 1 to 800."),
        (json!({"width": -1}), "width", "width is not a number of pixels."),
    ] {
        let response = txt2img(&app, fields);
        let sentence = sentence(&response);
        assert!(sentence.starts_with(expected), "{sentence}");
        assert_eq!(response.json()["detail"][0]["loc"], json!(["body", field]));
    }
}

#[test]
fn what_would_draw_another_picture_is_refused() {
    let app = TestApp::start();
    for fields in [
        json!({"script_name": "X/Y/Z plot", "script_args": []}),
        json!({"alwayson_scripts": {"X/Y/Z plot": {"args": [true]}}}),
    ] {
        let response = txt2img(&app, fields);
        assert_eq!((response.status, sentence(&response).as_str()), (422, "Script 'X/Y/Z plot' not found"));
    }
}

#[test]
fn bad_json_is_refused_without_repeating_it() {
    let app = TestApp::start();
    for body in ["[\"secret\"]", "{\"secret\"", "secret"] {
        let response = keyed("POST", TXT2IMG).body(body).send(app.port);
        let sentence = sentence(&response);
        assert!(response.status == 400 && !sentence.contains("secret"), "{sentence}");
    }
}

#[test]
fn a_job_that_fails_is_a_500_with_its_sentence() {
    let app = TestApp::start();
    let response = txt2img(&app, json!({"prompt": "fail"}));
    assert_eq!(
        (response.status, sentence(&response).as_str()),
        (500, "The model failed: The script says no.")
    );
}

#[test]
fn the_key_may_be_password_or_user_name() {
    let app = TestApp::start();
    let status = |value: Option<String>| {
        let request = Request::new("GET", "/sdapi/v1/options");
        let request = match &value {
            Some(value) => request.header("Authorization", value),
            None => request,
        };
        request.send(app.port).status
    };
    let basic = |text: &str| Some(format!("Basic {}", STANDARD.encode(text)));
    for value in
        [basic(&format!("me:{KEY}")), basic(&format!("{KEY}:")), basic(KEY), Some(format!("Bearer {KEY}"))]
    {
        assert_eq!(status(value.clone()), 200, "{value:?}");
    }
    for value in [None, Some("Basic".to_owned()), basic("me:wrong"), Some("Bearer wrong".to_owned())] {
        assert_eq!(status(value.clone()), 401, "{value:?}");
    }
}

#[test]
fn without_a_key_clients_are_asked_for_user_and_password() {
    let app = TestApp::start();
    let response = Request::new("GET", "/sdapi/v1/sd-models").send(app.port);
    assert_eq!(response.status, 401);
    assert!(response.header("www-authenticate").unwrap().starts_with("Basic realm="));
    assert!(sentence(&response).starts_with("No valid API key"));
}

#[test]
fn an_open_surface_needs_none_and_opens_nothing_else() {
    let app = TestApp::with(|config| config.http.open_surfaces = "a1111".parse().unwrap());
    let status = |target: &str, authorization: &str| {
        Request::new("GET", target).header("Authorization", authorization).send(app.port).status
    };
    for authorization in ["", "Basic", "Basic bWU6d3Jvbmc=", "Bearer none"] {
        assert_eq!(status("/sdapi/v1/options", authorization), 200, "{authorization}");
        assert_eq!(status("/controlnet/version", authorization), 200, "{authorization}");
    }
    assert_eq!(status("/v1/models", ""), 401);
    assert_eq!(status("/v2/stable-diffusion-v1/health", ""), 401);
}

#[test]
fn a_surface_that_is_off_has_no_routes() {
    let app = TestApp::with(|config| config.http.surfaces = "openai".parse().unwrap());
    let response = app.get("/sdapi/v1/options");
    assert_eq!((response.status, response.json()), (404, json!({"error": "No such route."})));
    let _: Value = app.get("/v1/models").json();
}
