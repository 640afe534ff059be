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

use std::thread;

use serde_json::Value;

use crate::client::Response;
use crate::helpers::TestApp;

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

/// The answer to a request that draws, and the `input` of its job.
fn with_input(app: &TestApp, send: impl Fn() -> Response + Sync) -> (Response, Value) {
    app.script.hold();
    thread::scope(|scope| {
        let sending = scope.spawn(&send);
        while app.script.steps() == 0 {
            assert!(!sending.is_finished(), "{:?}", send());
            thread::yield_now();
        }
        let requests = app.get("/v2/stable-diffusion-v1/requests").json();
        app.script.open();
        let input = requests["requests"][0]["input"].clone();
        (sending.join().unwrap(), input)
    })
}

/// Waits until the endpoint has no job any more.
fn wait_until_forgotten(app: &TestApp) {
    let jobs = || app.get("/v2/stable-diffusion-v1/health").json()["jobs"].clone();
    while jobs().as_object().unwrap().values().any(|count| count.as_u64() != Some(0)) {
        thread::yield_now();
    }
}
