//! The requests of clients that no registry has, as they send them.

use serde_json::{Value, json};

use super::{EDITS, GENERATIONS, SCRIPTED};
use crate::client::{Request, Response};
use crate::engine::Script;
use crate::helpers::{TestApp, keyed};

/// The names of the fields of the first picture.
fn fields(response: &Response) -> Vec<String> {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()["data"][0].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn open_webui_draws_and_edits() {
    let app = TestApp::start();
    let drawn = app.post(
        GENERATIONS,
        json!({
            "model": "dall-e-2", "prompt": "a dog", "n": 1, "size": "512x512", "response_format": "b64_json", "steps": 10,
            "negative_prompt": "blurry",
        }),
    );
    assert_eq!(drawn.json()["data"], json!([{"b64_json": SCRIPTED}]));
    // It prefers a URL if there is one, and then refuses to fetch it from a private address.
    let body = json!({"model": "gpt-image-1", "prompt": "a dog", "n": 1, "size": "512x512"});
    assert_eq!(fields(&app.post(GENERATIONS, body)), ["b64_json"]);
    let picture = crate::engine::picture(stablehand::domain::ImageSize { width: 64, height: 64 });
    // Its HTTP library writes the type of every part, before its name.
    let text = |name: &str, value: &str| {
        let head = "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data";
        format!("--X\r\n{head}; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
    };
    let file = |name: &str| {
        let head = "Content-Type: image/png\r\nContent-Disposition: form-data";
        let head = format!("--X\r\n{head}; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
        [head.as_bytes(), &picture, b"\r\n"].concat()
    };
    for files in [vec![file("image")], vec![file("image[]"), file("image[]")]] {
        let texts = [text("model", "gpt-image-1"), text("prompt", "a dog")];
        let body = [texts.concat(), files.concat(), b"--X--\r\n".to_vec()].concat();
        let request = keyed("POST", &format!("{EDITS}?api-version=2025-04-01-preview"));
        let request = request.header("Content-Type", "multipart/form-data; boundary=X").body(body);
        assert_eq!(fields(&request.send(app.port)), ["b64_json"]);
    }
}

#[test]
fn sillytavern_asks_what_there_is_without_a_header() {
    let app = TestApp::with(|config| config.http.open_surfaces = "openai".parse().unwrap());
    assert_eq!(Request::new("OPTIONS", GENERATIONS).send(app.port).status, 204);
    let models = Request::new("GET", "/v1/models").send(app.port);
    assert_eq!(models.json()["data"][0]["id"], "stable-diffusion-v1");
}

#[test]
fn librechat_reads_base64_and_its_older_tool_a_url() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    let body = json!({
        "model": "gpt-image-1", "prompt": "a dog", "n": 1, "quality": "auto", "size": "auto", "background": "auto",
        "output_format": "png", "output_compression": null,
    });
    assert_eq!(fields(&app.post(GENERATIONS, body)), ["b64_json"]);
    let body = json!({
        "model": "dall-e-3", "prompt": "a dog", "n": 1, "quality": "standard", "style": "vivid", "size": "1024x1024",
    });
    assert_eq!(fields(&app.post(GENERATIONS, body)), ["url"]);
}

#[test]
fn langchain_litellm_n8n_nextcloud_and_lobechat_read_what_they_look_for() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    for (client, body, expected) in [
        (
            "langchain",
            json!({"model": "dall-e-2", "prompt": "a", "n": 1, "size": "1024x1024"}),
            ["url"].as_slice(),
        ),
        ("litellm", json!({"model": "stable-diffusion-v1", "prompt": "a"}), &["b64_json", "url"]),
        (
            "n8n",
            json!({"model": "dall-e-3", "prompt": "a", "size": "1024x1024", "response_format": "b64_json", "quality": "hd", "style": "natural"}),
            &["b64_json"],
        ),
        (
            "nextcloud",
            json!({"prompt": "a", "size": "1024x1024", "n": 2, "response_format": "url"}),
            &["url"],
        ),
        (
            "lobechat",
            json!({"model": "sd", "prompt": "a", "n": 1, "input_fidelity": "high", "size": "1024x1024", "user": null}),
            &["b64_json", "url"],
        ),
    ] {
        assert_eq!(fields(&app.post(GENERATIONS, body)), expected, "{client}");
    }
}

#[test]
fn azures_mode_sends_its_key_in_its_own_header() {
    let app = TestApp::start();
    let target = "/images/generations?api-version=2025-04-01-preview";
    let body = json!({"prompt": "a dog", "model": "gpt-image-1"}).to_string();
    let request = Request::new("POST", target).header("api-key", "first-key").body(body.clone());
    assert_eq!(request.send(app.port).json()["data"], json!([{"b64_json": SCRIPTED}]));
    let wrong = Request::new("POST", target).header("api-key", "wrong").body(body).send(app.port);
    assert_eq!((wrong.status, &super::error(&wrong)["type"]), (401, &Value::from("invalid_request_error")));
    assert_eq!(keyed("GET", "/models").send(app.port).status, 200);
}
