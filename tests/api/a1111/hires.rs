//! `enable_hr`, as a request translates it.

use serde_json::{Value, json};

use super::{info, sentence, txt2img};
use crate::helpers::{TestApp, with_input};

/// The field `hires` of the job, and the warnings of the answer.
fn hires(app: &TestApp, fields: Value) -> (Value, Value) {
    let mut body = json!({"prompt": "a dog", "enable_hr": true, "steps": 4});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let (response, input) = with_input(app, || txt2img(app, body.clone()));
    assert_eq!(response.status, 200, "{response:?}");
    (input["hires"].clone(), response.json()["warnings"].clone())
}

#[test]
fn the_second_pass_has_a1111s_defaults() {
    let app = TestApp::start();
    let expected = json!({"scale": 2.0, "upscaler": "Latent", "strength": 0.75});
    assert_eq!(hires(&app, json!({})), (expected, Value::Null));
}

#[test]
fn every_field_of_the_second_pass_is_translated() {
    let app = TestApp::start();
    let fields = json!({
        "width": 512, "height": 768, "hr_scale": "1.5", "hr_upscaler": "Latent (nearest-exact)",
        "hr_second_pass_steps": 12.5, "denoising_strength": 0.4, "hr_sampler_name": "DPM++ 2M", "hr_scheduler": "Beta",
        "hr_prompt": "a cat", "hr_negative_prompt": "dogs", "hr_cfg": 5, "hr_checkpoint_name": "Use same checkpoint",
    });
    let expected = json!({
        "scale": 1.5, "upscaler": "Latent (nearest-exact)", "steps": 12, "strength": 0.4,
        "scheduler": "DPM-M", "spacing": "beta", "prompt": "a cat", "negative_prompt": "dogs", "guidance_scale": 5.0,
    });
    assert_eq!(hires(&app, fields), (expected, Value::Null));
}

#[test]
fn what_is_as_in_the_first_pass_is_not_said() {
    let app = TestApp::start();
    let fields = json!({
        "hr_scale": 1, "hr_second_pass_steps": 0, "hr_sampler_name": "Use same sampler", "hr_scheduler": "Use same scheduler",
        "hr_prompt": "", "hr_negative_prompt": null, "hr_cfg": 1, "hr_upscaler": null,
    });
    let expected = json!({"scale": 1.0, "upscaler": "Latent", "strength": 0.75});
    assert_eq!(hires(&app, fields), (expected, Value::Null));
}

#[test]
fn the_size_may_be_one_side_or_two() {
    let app = TestApp::start();
    let (one, _) = hires(&app, json!({"hr_resize_x": 800, "hr_scale": 3}));
    assert_eq!((&one["width"], one.get("height"), one.get("scale")), (&json!(800), None, None));
    // Beyond the limit of one pass: the first one is smaller than asked, and so would be a factor of it.
    let (large, _) = hires(&app, json!({"width": 1024, "height": 1024, "hr_scale": 1.5}));
    assert_eq!((&large["width"], &large["height"]), (&json!(1536), &json!(1536)));
    let (both, _) = hires(&app, json!({"hr_resize_x": 800, "hr_resize_y": 600}));
    assert_eq!((&both["width"], &both["height"]), (&json!(800), &json!(600)));
}

#[test]
fn second_passes_that_would_not_fit_into_memory_together_are_refused() {
    let app = TestApp::start();
    for (fields, start) in [
        (
            json!({"n_iter": 100, "hr_scale": 4}),
            "hr_scale does not meet the constraints. 100 pictures of 1024 × 1024 are more than",
        ),
        (json!({"hr_resize_y": 5000}), "hr_resize_y does not meet the constraints. The picture would become"),
        (json!({"hr_scale": 9}), "hr_scale does not meet the constraints."),
        (json!({"hr_second_pass_steps": 501}), "hr_second_pass_steps does not meet the constraints."),
    ] {
        let mut body = json!({"prompt": "a dog", "enable_hr": true, "width": 256, "height": 256});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let response = txt2img(&app, body);
        let sentence = sentence(&response);
        assert!(response.status == 422 && sentence.starts_with(start), "{fields}: {sentence}");
    }
}

#[test]
fn an_unknown_upscaler_is_lanczos() {
    let app = TestApp::start();
    let (field, warnings) = hires(&app, json!({"hr_upscaler": "ESRGAN_4x"}));
    assert_eq!(field["upscaler"], "Lanczos");
    assert_eq!(warnings, json!(["The upscaler ESRGAN_4x is not here; Lanczos is used."]));
}

#[test]
fn switched_off_it_does_nothing() {
    let app = TestApp::start();
    for off in [json!(false), json!("false"), json!(null), json!(0)] {
        let body =
            json!({"enable_hr": off, "hr_scale": 2, "hr_upscaler": "magic", "denoising_strength": 0.7});
        let (response, input) = with_input(&app, || txt2img(&app, body.clone()));
        assert!(input.get("hires").is_none() && response.json().get("warnings").is_none(), "{off}");
        assert_eq!(info(&response)["denoising_strength"], Value::Null);
    }
}
