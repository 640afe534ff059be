//! The tools: what they draw and answer.

use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stablehand::diffusion::image::decode_image;
use stablehand::diffusion::{RgbImage, encode_png};

use super::{Answer, ask, begin, call, failure, posted, request, result, wait_until_forgotten};
use crate::engine::Script;
use crate::helpers::{TestApp, prompt};

fn drawing() -> TestApp {
    TestApp::launch(|_| {}, Script::drawing())
}

fn photo(width: u32, height: u32) -> String {
    let pixels = vec![120; (width * height * 3) as usize];
    STANDARD.encode(encode_png(&RgbImage { width, height, pixels }, &[]).unwrap())
}

/// The pictures of a result: their types and sizes. What the fields say must be the same.
fn pictures(result: &Value) -> Vec<(String, (u32, u32))> {
    let content = result["content"].as_array().unwrap();
    assert_eq!((&content[0]["type"], &result["isError"]), (&json!("text"), &json!(false)), "{result}");
    let described = result["structuredContent"]["images"].as_array().unwrap();
    assert_eq!(described.len(), content.len() - 1);
    let look = |(picture, described): (&Value, &Value)| {
        assert_eq!(picture["type"], "image");
        assert_eq!(picture["mimeType"], described["mime_type"]);
        let file = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        let size = decode_image(&file).unwrap().size();
        assert_eq!(json!([size.width, size.height]), json!([described["width"], described["height"]]));
        (picture["mimeType"].as_str().unwrap().to_owned(), (size.width, size.height))
    };
    content[1..].iter().zip(described).map(look).collect()
}

#[test]
fn a_prompt_becomes_a_picture_and_the_job_is_forgotten() {
    let app = drawing();
    let result = result(&app, "generate_image", json!({"prompt": "a fox", "seed": 7}));
    assert_eq!(pictures(&result), [("image/jpeg".to_owned(), (512, 512))]);
    assert_eq!(result["content"][0]["text"], "Here is the picture: 512 × 512, seed 7.");
    let fields = &result["structuredContent"];
    assert_eq!((&fields["status"], &fields["withheld"]), (&json!("COMPLETED"), &json!(0)));
    wait_until_forgotten(&app);
    let metrics = app.get("/metrics").text().to_owned();
    assert!(
        metrics
            .contains(r#"stablehand_jobs_submitted_total{surface="mcp",endpoint="stable-diffusion-v1"} 1"#),
        "{metrics}"
    );
}

#[test]
fn sizes_formats_and_counts_are_what_was_asked() {
    let app = drawing();
    let asked = json!({"prompt": "a fox", "seed": "7", "count": 2, "width": 1024, "height": 768, "format": "png", "steps": 2});
    let answer = result(&app, "generate_image", asked);
    assert_eq!(pictures(&answer), vec![("image/png".to_owned(), (1024, 768)); 2]);
    assert_eq!(answer["content"][0]["text"], "Here are 2 pictures: 1024 × 768, seed 7; 1024 × 768, seed 8.");
}

#[test]
fn a_picture_is_changed_at_its_own_size() {
    let app = drawing();
    let edit = |image: String| {
        result(
            &app,
            "edit_image",
            json!({"prompt": "a fox", "image": image, "strength": 0.5, "format": "webp"}),
        )
    };
    assert_eq!(pictures(&edit(photo(128, 64))), [("image/webp".to_owned(), (128, 64))]);
    let uri = format!("data:image/png;base64,{}", photo(128, 128));
    assert_eq!(pictures(&edit(uri)), [("image/webp".to_owned(), (128, 128))]);
    let masked = json!({"prompt": "a fox", "image": photo(128, 128), "mask": photo(128, 128), "width": 64, "height": 64});
    assert_eq!(pictures(&result(&app, "edit_image", masked)), [("image/jpeg".to_owned(), (64, 64))]);
}

#[test]
fn a_picture_is_enlarged_without_a_prompt() {
    let app = drawing();
    let enlarge = |fields: Value| {
        let mut arguments = json!({"image": photo(128, 64)});
        arguments.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        pictures(&result(&app, "upscale_image", arguments))[0].0.clone()
    };
    assert_eq!(enlarge(json!({"scale": "2", "upscaler": "nearest", "format": "png"})), "image/png");
    assert_eq!(enlarge(json!({"width": 640})), "image/jpeg");
    let refused = failure(&app, "upscale_image", json!({"image": photo(128, 64), "scale": 9}));
    assert!(refused.starts_with("scale does not meet the constraints. It is 9"), "{refused}");
}

#[test]
fn a_mistake_is_told_in_one_sentence() {
    let app = TestApp::start();
    for (tool, arguments, sentence) in [
        ("generate_image", json!({}), "prompt is a required input."),
        (
            "generate_image",
            json!({"prompt": "a", "steps": 0}),
            "steps does not meet the constraints. It is 0; it must be a whole number from 1 to 500.",
        ),
        (
            "generate_image",
            json!({"prompt": "a", "model": "flux"}),
            "The model flux is not here: this server has stable-diffusion-v1.",
        ),
        (
            "generate_image",
            json!({"prompt": "a", "size": "1x1"}),
            "There is no argument size; the arguments of generate_image are: ",
        ),
        (
            "generate_image",
            json!({"prompt": "a", "wait_seconds": 601}),
            "wait_seconds must be from 0 to 600.",
        ),
        ("generate_image", json!({"prompt": "fail"}), "The model failed: The script says no."),
        ("edit_image", json!({"prompt": "a"}), "image is a required input."),
        (
            "edit_image",
            json!({"prompt": "a", "image": "C:\\fox.png"}),
            "image does not meet the constraints. It looks like the path of a file",
        ),
        ("get_job", json!({}), "job_id is a required input."),
        ("get_job", json!({"job_id": "../a"}), "No such job: it never existed, or it has been deleted."),
        ("cancel_job", json!({"job_id": "0199f6d2-8a3c-7c11-9d8e-2f6b1a4c5d6e"}), "No such job"),
        ("list_models", json!({"a": 1}), "There is no argument a; the arguments of list_models are: none."),
    ] {
        let found = failure(&app, tool, arguments.clone());
        assert!(found.starts_with(sentence), "{tool} {arguments}: {found}");
    }
    let unknown = ask(&app, &call(1, "draw_me", json!({})));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[test]
fn a_client_with_a_token_hears_of_each_step() {
    let app = drawing();
    let mut message = call(5, "generate_image", json!({"prompt": "a fox", "steps": 4}));
    message["params"]["_meta"] = json!({"progressToken": "p"});
    app.script.hold();
    let mut answer = Answer::open(&app, &message, &[]);
    app.script.wait_for_step(1);
    // One step ends, and the next one does not.
    app.script.allow(1);
    let mut heard = Vec::new();
    let last = loop {
        let message = answer.next().unwrap();
        app.script.open();
        if message["method"] != "notifications/progress" {
            break message;
        }
        assert_eq!(
            (&message["params"]["progressToken"], message["params"]["total"].as_f64()),
            (&json!("p"), Some(4.0))
        );
        heard.push(message["params"]["progress"].as_f64().unwrap());
    };
    assert_eq!(last["id"], 5);
    // An engine that is faster than its listener may skip steps.
    assert!(
        heard.first().is_some_and(|first| *first <= 1.0)
            && heard.is_sorted_by(|a, b| a < b)
            && heard.iter().all(|step| *step <= 4.0),
        "{heard:?}"
    );
}

#[test]
fn a_cancelled_call_draws_no_further() {
    let app = drawing();
    let session = begin(&app);
    let headers = [("Mcp-Session-Id", session.as_str())];
    for reason in ["notification", "end of the session", "closed connection"] {
        let session = if reason == "notification" { session.clone() } else { begin(&app) };
        let headers = [("Mcp-Session-Id", session.as_str())];
        app.script.hold();
        thread::scope(|scope| {
            let waiting = scope
                .spawn(|| Answer::open(&app, &call("x", "generate_image", json!({"prompt": "a"})), &headers));
            app.script.wait_for_step(1);
            let mut answer = waiting.join().unwrap();
            match reason {
                "notification" => {
                    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}});
                    let response =
                        posted(cancel.to_string()).header("Mcp-Session-Id", &session).send(app.port);
                    assert_eq!(response.status, 202);
                    assert!(answer.next().is_none(), "an answer that nobody wants");
                }
                "end of the session" => {
                    crate::helpers::keyed("DELETE", "/mcp").header("Mcp-Session-Id", &session).send(app.port);
                    assert!(answer.next().is_none());
                }
                _ => drop(answer),
            }
            // No step ends while the script holds, so the job can only have been cancelled.
            let in_progress =
                || app.get("/v2/stable-diffusion-v1/health").json()["jobs"]["inProgress"].clone();
            while in_progress() != 0 {
                thread::yield_now();
            }
            app.script.open();
        });
        wait_until_forgotten(&app);
        // The only worker is free again.
        assert_eq!(pictures(&result(&app, "generate_image", json!({"prompt": "a"}))).len(), 1);
    }
    // The same id can be used again.
    let again = Answer::open(&app, &request("x", "ping", json!({})), &headers).next().unwrap();
    assert_eq!(again["result"], json!({}));
}

#[test]
fn a_job_that_takes_long_is_looked_for_again() {
    let app = drawing();
    app.script.hold();
    let asked = json!({"prompt": "a fox", "wait_seconds": 0, "width": 1024, "height": 1024, "format": "png"});
    let started = result(&app, "generate_image", asked);
    let id = started["structuredContent"]["job_id"].as_str().unwrap().to_owned();
    let text = started["content"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("The pictures are not finished.") && text.contains(&id), "{text}");
    assert_ne!(started["structuredContent"]["status"], "COMPLETED");
    assert!(started["structuredContent"].get("images").is_none());
    app.script.open();
    let look = || result(&app, "get_job", json!({"job_id": id}));
    assert_eq!(pictures(&look()), [("image/png".to_owned(), (1024, 1024))]);
    // It stays for a while: an answer may be lost.
    assert_eq!(pictures(&look()), [("image/png".to_owned(), (1024, 1024))]);
}

#[test]
fn jobs_of_other_apis_are_found_and_cancelled() {
    let app = drawing();
    let id = app.submit(&prompt("a dog"));
    assert_eq!(pictures(&result(&app, "get_job", json!({"job_id": id}))).len(), 1);
    app.script.hold();
    let id = app.submit(&prompt("a dog"));
    let cancelled = result(&app, "cancel_job", json!({"job_id": id}));
    assert_eq!(cancelled["structuredContent"], json!({"job_id": id, "status": "CANCELLED"}));
    assert_eq!(failure(&app, "get_job", json!({"job_id": id})), "The job was cancelled on the server.");
    let again = result(&app, "cancel_job", json!({"job_id": id}));
    assert_eq!(again["structuredContent"]["status"], "CANCELLED");
    app.script.open();
}

#[test]
fn models_are_listed() {
    let app = TestApp::start();
    let result = result(&app, "list_models", json!({}));
    let model = json!({"id": "stable-diffusion-v1", "name": "scripted", "is_default": true, "edits_images": true,
        "scheduler": "K-LMS", "loras": []});
    assert_eq!(result["structuredContent"]["models"], json!([model]));
    assert!(result["structuredContent"]["schedulers"].as_array().unwrap().contains(&json!("EULER-D")));
    // For clients that read no fields, the same as text.
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(text, result["structuredContent"]);
}
