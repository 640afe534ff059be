//! Random JSON at every route that reads a body: each gets an answer in A1111's form, and never a 5xx.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use serde_json::json;
use stablehand::http::RateLimits;

use super::sentence;
use crate::arbitrary::json_text;
use crate::engine::Script;
use crate::helpers::{TestApp, keyed};

const CASES: u32 = 800;

const TARGETS: [&str; 7] = [
    "/sdapi/v1/txt2img",
    "/sdapi/v1/img2img",
    "/sdapi/v1/extra-single-image",
    "/sdapi/v1/extra-batch-images",
    "/sdapi/v1/png-info",
    "/sdapi/v1/options",
    "/internal/progress",
];

/// The names of fields with a meaning.
const FIELDS: [&str; 54] = [
    "prompt",
    "negative_prompt",
    "seed",
    "subseed",
    "subseed_strength",
    "seed_resize_from_w",
    "seed_resize_from_h",
    "sampler_name",
    "sampler_index",
    "scheduler",
    "steps",
    "cfg_scale",
    "width",
    "height",
    "batch_size",
    "n_iter",
    "clip_skip",
    "override_settings",
    "eta",
    "s_churn",
    "s_noise",
    "restore_faces",
    "tiling",
    "enable_hr",
    "hr_scale",
    "hr_resize_x",
    "hr_resize_y",
    "hr_upscaler",
    "hr_second_pass_steps",
    "denoising_strength",
    "hr_sampler_name",
    "hr_scheduler",
    "hr_prompt",
    "hr_cfg",
    "refiner_checkpoint",
    "refiner_switch_at",
    "script_name",
    "alwayson_scripts",
    "send_images",
    "infotext",
    "lora",
    "model",
    "init_images",
    "mask",
    "mask_blur",
    "inpainting_fill",
    "inpaint_full_res",
    "resize_mode",
    "image",
    "imageList",
    "upscaler_1",
    "upscaling_resize",
    "sd_model_checkpoint",
    "id_task",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => select(FIELDS.to_vec()).prop_map(str::to_owned), 1 => any::<String>()]
}

/// A value that often passes, as JSON text.
fn value() -> impl Strategy<Value = String> {
    let usual = select(vec![
        "null",
        "0",
        "1",
        "\"2\"",
        "true",
        "\"false\"",
        "\"png\"",
        "\"Lanczos\"",
        "\"Euler a\"",
        "\"karras\"",
        "640",
        "-1",
        "0.5",
        "12.5",
        "\"1e3\"",
        "[]",
        "{}",
        "\"a <lora:b:1> dog\"",
        "\"None\"",
        "[\"data:,\"]",
        "[{\"data\": \"AAAA\"}]",
        "{\"ControlNet\": {\"args\": [{\"model\": \"a [b]\", \"image\": \"AAAA\"}]}}",
        "{\"x\": {\"args\": [false]}}",
        "{\"sd_model_checkpoint\": 5}",
        "\"a\\nSteps: 1, Sampler: b, Size: 1x1, CFG scale: x\"",
        PICTURE,
        PICTURES,
    ]);
    prop_oneof![4 => usual.prop_map(str::to_owned), 1 => json_text()]
}

/// A PNG file of one transparent pixel.
const PICTURE: &str =
    "\"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==\"";
const PICTURES: &str =
    "[\"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==\"]";

/// A JSON object; names may repeat.
fn object() -> impl Strategy<Value = String> {
    vec((name(), value()), 0..10).prop_map(|fields| {
        let fields = fields.iter().map(|(name, value)| format!(",{}:{value}", json!(name)));
        format!(
            "{{\"steps\": 2, \"init_images\": {PICTURES}, \"image\": {PICTURE}{}}}",
            fields.collect::<String>()
        )
    })
}

#[test]
fn every_json_body_gets_an_answer_in_the_surfaces_form() {
    let app = TestApp::launch(|config| config.http.rate_limits = RateLimits::OFF, Script::drawing());
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let body = prop_oneof![6 => object(), 1 => json_text()];
    TestRunner::new(config)
        .run(&(select(TARGETS.to_vec()), body), |(target, body)| {
            let response = keyed("POST", target).body(body.as_str()).send(app.port);
            prop_assert!(response.status < 500, "{} {} {:?}", target, body, response);
            if response.status >= 400 {
                sentence(&response); // checks the whole body
            } else {
                response.json();
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(app.get("/sdapi/v1/progress").json()["progress"], 0.0);
}
