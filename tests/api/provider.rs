//! The dialect of `RunPod`'s public endpoints on the native routes, as the vendor's provider for the AI SDK speaks it.

use serde_json::{Value, json};

use crate::helpers::{TestApp, prompt};

const INPUT: &str =
    r#"{"prompt":"a fox","negative_prompt":"","size":"1328*1328","seed":-1,"enable_safety_checker":true}"#;

fn input() -> Value {
    serde_json::from_str(INPUT).unwrap()
}

#[test]
fn an_input_in_the_dialect_gets_an_object_on_every_route() {
    let app = TestApp::start();
    let done = app.post("/v2/stable-diffusion-v1/runsync", json!({"input": input()})).json();
    let output = &done["output"];
    let url = output["image_url"].as_str().unwrap();
    assert!(url.contains("/0/1328x1328-q90.png?expires="), "{url}");
    let seed = &output["images"][0]["seed"];
    assert!(seed.as_u64().unwrap() < 65_536);
    assert_eq!(
        *output,
        json!({"image_url": url, "result": url, "cost": 0, "images": [{"image": url, "seed": seed}]})
    );
    assert_eq!(
        done["input"],
        json!({"prompt": "a fox", "negative_prompt": "", "seed": -1, "width": 832, "height": 832})
    );
    let id = done["id"].as_str().unwrap();
    let status = app.status(id).json();
    assert_eq!(status["output"]["cost"], 0);
    let list = app.get("/v2/stable-diffusion-v1/requests").json();
    assert_eq!(list["requests"][0]["output"]["cost"], 0);
}

#[test]
fn all_other_inputs_keep_the_contract() {
    let app = TestApp::start();
    let done = app.post("/v2/stable-diffusion-v1/runsync", prompt("a fox")).json();
    assert!(done["output"].is_array());
    let refused =
        app.post("/v2/stable-diffusion-v1/run", json!({"input": {"prompt": "a", "output_format": "png"}}));
    assert_eq!(
        (refused.status, refused.error().as_str()),
        (400, "Unexpected input. output_format is not a valid input option.")
    );
}

#[test]
fn refusals_name_the_fields_of_the_dialect() {
    let app = TestApp::start();
    for (fields, sentence) in [
        (json!({"size": "8000*8000"}), "size does not meet the constraints. It is 8000 × 8000 pixels"),
        (json!({"size": "512*512", "guidance": "much"}), "guidance should be a number."),
        (json!({"size": "512*512", "image": "no picture"}), "init_image does not meet the constraints."),
        (json!({"size": "512*512", "num_outputs": 11}), "num_outputs does not meet the constraints."),
    ] {
        let mut input = fields.clone();
        input["prompt"] = json!("a fox");
        let refused = app.post("/v2/stable-diffusion-v1/run", json!({"input": input}));
        assert_eq!(refused.status, 400);
        assert!(refused.error().starts_with(sentence), "{fields}: {}", refused.error());
    }
}
