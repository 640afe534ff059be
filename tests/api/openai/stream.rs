//! Streamed answers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{GENERATIONS, SCRIPTED, wait_until_forgotten};
use crate::engine::Script;
use crate::helpers::{KEY, TestApp};

/// A streamed answer that is read event by event.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Sends a request and reads the head of its answer.
    fn open(app: &TestApp, body: &Value) -> Self {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        write!(
            stream,
            "POST {GENERATIONS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: application/json\r\n\
             Authorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(
            head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/event-stream"),
            "{head}"
        );
        Self(reader)
    }

    /// The data of the next event. Its name must be the data's type.
    fn next(&mut self) -> Option<Value> {
        let (mut name, mut line) = (None, String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(event) = line.strip_prefix("event: ") {
                name = Some(event.trim().to_owned());
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let data: Value = serde_json::from_str(data.trim()).unwrap();
                assert_eq!(data["type"].as_str(), name.as_deref());
                return Some(data);
            }
        }
    }
}

#[test]
fn previews_come_as_partial_images_and_then_the_pictures() {
    let app = TestApp::start();
    app.script.hold();
    let body = json!({
        "prompt": "a dog", "stream": true, "partial_images": 2, "steps": 5, "n": 2, "quality": "low",
        "model": "gpt-image-1",
    });
    let mut events = Events::open(&app, &body);
    let common = json!({
        "created_at": 1_700_000_000, "size": "512x512", "quality": "low", "background": "opaque",
        "output_format": "png",
    });
    let with = |mut fields: Value| {
        fields.as_object_mut().unwrap().extend(common.as_object().unwrap().clone());
        fields
    };
    for index in 0..2 {
        app.script.allow(1);
        let mut partial = events.next().unwrap();
        let picture = STANDARD.decode(partial["b64_json"].take().as_str().unwrap()).unwrap();
        assert_eq!(picture, format!("\u{89}PNG {}", index + 1).into_bytes());
        partial["created_at"] = json!(1_700_000_000);
        let expected = json!({
            "type": "image_generation.partial_image", "b64_json": null, "partial_image_index": index,
        });
        assert_eq!(partial, with(expected));
        // A preview comes once a second.
        app.advance_ms(1000);
    }
    app.script.open();
    let usage = json!({
        "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
        "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
    });
    for _ in 0..2 {
        let mut completed = events.next().unwrap();
        completed["created_at"] = json!(1_700_000_000);
        let expected = json!({"type": "image_generation.completed", "b64_json": SCRIPTED, "usage": usage});
        assert_eq!(completed, with(expected));
    }
    assert_eq!(events.next(), None);
    wait_until_forgotten(&app);
}

#[test]
fn without_partials_no_preview_is_drawn() {
    let app = TestApp::start();
    for partials in [json!(0), Value::Null] {
        app.script.hold();
        let body = json!({"prompt": "a dog", "stream": "true", "partial_images": partials, "steps": 3});
        let mut events = Events::open(&app, &body);
        app.script.allow(3);
        assert_eq!(events.next().unwrap()["type"], "image_generation.completed");
        assert_eq!((events.next(), app.script.previews()), (None, 0));
    }
}

#[test]
fn previews_have_the_format_that_was_asked() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    app.script.hold();
    let body = json!({
        "prompt": "a dog", "stream": true, "partial_images": 1, "steps": 2, "output_format": "jpeg",
        "size": "1024x1024",
    });
    let mut events = Events::open(&app, &body);
    for kind in ["image_generation.partial_image", "image_generation.completed"] {
        // The second step waits until the preview of the first has been read: a slow reader may miss it otherwise.
        app.script.allow(1);
        let event = events.next().unwrap();
        assert_eq!(event["type"], kind);
        assert_eq!((&event["output_format"], &event["size"]), (&json!("jpeg"), &json!("1024x1024")));
        let file = STANDARD.decode(event["b64_json"].as_str().unwrap()).unwrap();
        assert!(file.starts_with(b"\xff\xd8"), "{kind}");
    }
    assert_eq!(events.next(), None);
}

#[test]
fn warnings_come_with_the_last_picture() {
    let app = TestApp::start();
    for (seed, nsfw, pictures) in [(1, true, 2), (1, false, 1)] {
        let body = json!({"prompt": "warn", "stream": true, "n": 2, "seed": seed, "nsfw": nsfw});
        let mut events = Events::open(&app, &body);
        for index in 1..=pictures {
            let completed = events.next().unwrap();
            assert_eq!(completed["type"], "image_generation.completed");
            let warnings =
                if index == pictures { json!(["The script has no \"ink\"."]) } else { Value::Null };
            assert_eq!(completed["warnings"], warnings, "{index} of {pictures}");
        }
        assert_eq!(events.next(), None);
    }
}

#[test]
fn a_failure_is_an_event_and_ends_the_stream() {
    let app = TestApp::start();
    for (fields, message, code) in [
        (json!({"prompt": "fail"}), "The model failed: The script says no.", "job_failed"),
        (
            json!({"prompt": "a dog", "seed": 2, "nsfw": false}),
            "The safety checker withheld every picture of this prompt.",
            "moderation_blocked",
        ),
    ] {
        let mut body = json!({"stream": true, "partial_images": 1});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut events = Events::open(&app, &body);
        let mut event = events.next().unwrap();
        while event["type"] != "error" {
            event = events.next().unwrap();
        }
        assert_eq!((&event["error"]["message"], &event["error"]["code"]), (&json!(message), &json!(code)));
        let mut rest = String::new();
        events.0.read_to_string(&mut rest).unwrap();
        assert!(!rest.contains("event:"), "{rest}");
    }
    wait_until_forgotten(&app);
}

#[test]
fn an_edit_names_its_events_after_itself() {
    let app = TestApp::start();
    let form = super::forms::TestForm::default().text("prompt", "a dog").text("stream", "true").file(
        "image",
        "a.png",
        &STANDARD.decode(PIXEL).unwrap(),
    );
    let response = form.post(&app, super::EDITS);
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(
        response.text().contains("event: image_edit.completed\ndata: {\"type\":\"image_edit.completed\",")
    );
}

/// A PNG file of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
