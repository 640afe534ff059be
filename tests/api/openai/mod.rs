//! OpenAI's Images API: whole bodies, as its clients send and read them.

mod arbitrary;
mod clients;
mod edits;
mod errors;
mod forms;
mod generations;
mod models;
mod pictures;
mod stream;

use serde_json::Value;

use crate::client::Response;
use crate::helpers::{wait_until_forgotten, with_input};

const GENERATIONS: &str = "/v1/images/generations";
const EDITS: &str = "/v1/images/edits";
/// What the scripted engine draws, in base64.
const SCRIPTED: &str = "iVBORyBzY3JpcHRlZA==";

/// The `error` object of a refusal. The body must have no other field.
fn error(response: &Response) -> Value {
    let body = response.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let error = body["error"].clone();
    let names: Vec<_> = error.as_object().unwrap_or_else(|| panic!("{body}")).keys().cloned().collect();
    assert_eq!(names, ["code", "message", "param", "type"], "{body}");
    error
}
