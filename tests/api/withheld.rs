//! Pictures that the safety checker flags, and what a client should know of its pictures.

use serde_json::{Value, json};

use crate::helpers::TestApp;

fn drawn(app: &TestApp, nsfw: Value) -> Value {
    let input = json!({"prompt": "a dog", "seed": 1, "num_outputs": 2, "nsfw": nsfw});
    app.post("/v2/stable-diffusion-v1/runsync?wait=90000", json!({"input": input})).json()
}

#[test]
fn a_flagged_picture_has_a_seed_but_no_image() {
    let app = TestApp::start();
    let body = drawn(&app, json!(false));
    assert_eq!(body["status"], "COMPLETED");
    let output = body["output"].as_array().unwrap();
    assert_eq!((output.len(), &output[0]["seed"]), (2, &json!(1)));
    assert!(output[0]["image"].is_string() && output[0].get("nsfw").is_none(), "{body}");
    assert_eq!(output[1], json!({"image": null, "nsfw": true, "seed": 2}));

    let id = body["id"].as_str().unwrap();
    let stream = app.get(&format!("/v2/stable-diffusion-v1/stream/{id}")).json()["stream"].clone();
    assert_eq!(stream.as_array().unwrap().last().unwrap(), &json!({"output": output[1]}));
}

#[test]
fn flagged_pictures_are_shown_unless_nsfw_is_false() {
    let app = TestApp::start();
    for nsfw in [json!(true), Value::Null] {
        let body = drawn(&app, nsfw);
        for picture in body["output"].as_array().unwrap() {
            assert!(picture["image"].is_string() && picture.get("nsfw").is_none(), "{picture}");
        }
    }
}

#[test]
fn warnings_stand_beside_the_output_wherever_a_job_is_shown() {
    let app = TestApp::start();
    let run = |prompt: &str| {
        let body =
            app.post("/v2/stable-diffusion-v1/runsync?wait=90000", json!({"input": {"prompt": prompt}}));
        body.json()
    };
    assert!(run("a dog").get("warnings").is_none());
    let body = run("warn");
    let warnings = json!(["The script has no \"ink\"."]);
    assert_eq!((&body["status"], &body["warnings"]), (&json!("COMPLETED"), &warnings), "{body}");
    let id = body["id"].as_str().unwrap();
    assert_eq!(app.get(&format!("/v2/stable-diffusion-v1/status/{id}")).json()["warnings"], warnings);
    let listed = app.get("/v2/stable-diffusion-v1/requests").json()["requests"].clone();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.iter().filter(|job| job["warnings"] == warnings).count(), 1, "{listed:?}");
}
