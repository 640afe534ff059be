//! The API of A1111's web UI: whole bodies, as its clients send and read them.

mod arbitrary;
mod clients;
mod errors;
mod extras;
mod hires;
mod img2img;
mod lists;
mod options;
mod progress;
mod txt2img;

use serde_json::{Value, json};

use crate::client::Response;
use crate::helpers::TestApp;

const TXT2IMG: &str = "/sdapi/v1/txt2img";
const IMG2IMG: &str = "/sdapi/v1/img2img";
/// What the scripted engine draws, in base64.
const SCRIPTED: &str = "iVBORyBzY3JpcHRlZA==";

/// `info` of an answer, parsed.
fn info(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{response:?}");
    serde_json::from_str(response.json()["info"].as_str().unwrap()).unwrap()
}

/// The sentence of a refusal. Its body must be one of A1111's two forms.
fn sentence(response: &Response) -> String {
    let body = response.json();
    if let Some(details) = body["detail"].as_array() {
        assert_eq!((response.status, body.as_object().unwrap().len(), details.len()), (422, 1, 1), "{body}");
        assert_eq!(details[0]["loc"][0], "body", "{body}");
        assert!(details[0]["type"].is_string(), "{body}");
        return details[0]["msg"].as_str().unwrap().to_owned();
    }
    let sentence = body["detail"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
    let expected = json!({"error": "HTTPException", "detail": sentence, "body": "", "errors": sentence});
    assert_eq!(body, expected);
    sentence
}

fn txt2img(app: &TestApp, body: Value) -> Response {
    app.post(TXT2IMG, body)
}
