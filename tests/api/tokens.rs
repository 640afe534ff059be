//! `POST /tokens`. The scripted model has no tokenizer; `tests/process` and the page's tests count with the built-in one.

use serde_json::json;

use crate::helpers::{TestApp, keyed};

const TOKENS: &str = "/v2/stable-diffusion-v1/tokens";

#[test]
fn a_body_that_is_no_prompt_is_refused() {
    let app = TestApp::start();
    let example = r#"The request body should be a JSON object, such as {"prompt": "a dog"}."#;
    for body in ["", "[]", "{}", r#"{"prompt": 1}"#, r#"{"prompt": "", "more": 1}"#, "\"a dog\""] {
        let refused = app.post_text(TOKENS, body);
        assert_eq!((refused.status, refused.error().as_str()), (400, example), "{body}");
    }
    let long = app.post(TOKENS, json!({"prompt": "a".repeat(70_000)}));
    assert_eq!((long.status, long.error().contains("65536 bytes")), (400, true));
    assert_eq!(app.post(TOKENS, json!({"prompt": "a".repeat(500_000)})).status, 413);
    assert_eq!(app.post(TOKENS, json!({"prompt": "a dog"})).error(), "This model counts no tokens.");
    assert_eq!(keyed("GET", TOKENS).send(app.port).status, 405);
}
