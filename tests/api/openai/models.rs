//! `GET /v1/models`.

use serde_json::json;

use super::error;
use crate::helpers::{TestApp, endpoint};

#[test]
fn models_are_the_endpoints() {
    let app = TestApp::with(|config| config.endpoints = vec![endpoint("second", 1), endpoint("first", 1)]);
    let model =
        |id: &str| json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "stablehand"});
    for prefix in ["/v1", ""] {
        let list = app.get(&format!("{prefix}/models")).json();
        assert_eq!(list, json!({"object": "list", "data": [model("second"), model("first")]}));
        assert_eq!(app.get(&format!("{prefix}/models/first")).json(), model("first"));
    }
}

#[test]
fn an_unknown_model_is_named_with_those_that_there_are() {
    let app = TestApp::with(|config| config.endpoints = vec![endpoint("b", 1), endpoint("a", 1)]);
    for id in ["flux", "black-forest/flux"] {
        let response = app.get(&format!("/v1/models/{id}"));
        let expected = json!({
            "message": format!("The model {id} is not here: this server has a, b."),
            "type": "invalid_request_error", "param": "model", "code": "model_not_found",
        });
        assert_eq!((response.status, error(&response)), (404, expected));
    }
    let response = app.post("/v1/images/generations", json!({"prompt": "a dog", "model": "flux"}));
    assert_eq!((response.status, &error(&response)["code"]), (404, &json!("model_not_found")));
}
