//! `POST /sdapi/v1/img2img`.

use serde_json::{Value, json};

use super::{IMG2IMG, SCRIPTED, sentence};
use crate::engine::Script;
use crate::helpers::{TestApp, with_input};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stablehand::diffusion::{RgbImage, encode_png};

fn png() -> String {
    let image = RgbImage { width: 2, height: 1, pixels: vec![9; 6] };
    STANDARD.encode(encode_png(&image, &[]).unwrap())
}

/// The `input` of the job of a request with these fields, without what every job has.
fn input(app: &TestApp, fields: Value) -> Value {
    let mut body = json!({"init_images": [png()], "prompt": "a dog", "seed": 1});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let (response, mut input) = with_input(app, || app.post(IMG2IMG, body.clone()));
    assert_eq!(response.json()["images"], json!([SCRIPTED]), "{response:?}");
    for name in [
        "prompt",
        "negative_prompt",
        "seed",
        "num_outputs",
        "width",
        "height",
        "num_inference_steps",
        "guidance_scale",
        "scheduler",
        "spacing",
        "noise",
    ] {
        assert!(input.as_object_mut().unwrap().remove(name).is_some(), "{name}");
    }
    input
}

#[test]
fn a_picture_is_changed() {
    let app = TestApp::start();
    assert_eq!(input(&app, json!({})), json!({"init_image": png(), "prompt_strength": 0.75}));
    let uri = format!("data:image/png;base64,{}", png());
    assert_eq!(
        input(&app, json!({"init_images": [uri, png()], "denoising_strength": "0.4", "resize_mode": 2})),
        json!({"init_image": uri, "prompt_strength": 0.4, "resize_mode": "fill"})
    );
}

#[test]
fn a_mask_has_a1111s_defaults() {
    let app = TestApp::start();
    assert_eq!(
        input(&app, json!({"mask": png()})),
        json!({
            "init_image": png(), "prompt_strength": 0.75, "mask": png(), "mask_blur": 4, "mask_invert": false,
            "inpaint_fill": "surroundings", "inpaint_area": "masked", "inpaint_padding": 0,
        })
    );
    let fields = json!({
        "mask": png(), "mask_blur_x": 8, "inpainting_mask_invert": 1, "inpainting_fill": 1, "inpaint_full_res": false,
        "inpaint_full_res_padding": 32, "resize_mode": 1,
    });
    assert_eq!(
        input(&app, fields),
        json!({
            "init_image": png(), "prompt_strength": 0.75, "mask": png(), "mask_blur": 8, "mask_invert": true,
            "inpaint_fill": "original", "resize_mode": "crop",
        })
    );
    let fields =
        json!({"mask": png(), "mask_blur": 500, "inpainting_fill": 3, "inpaint_full_res_padding": 32});
    let input = input(&app, fields);
    assert_eq!((&input["mask_blur"], &input["inpaint_fill"]), (&json!(64), &json!("nothing")));
    assert_eq!(input["inpaint_padding"], 32);
}

#[test]
fn a_picture_must_be_there_and_be_one() {
    let app = TestApp::start();
    for body in
        [json!({}), json!({"init_images": []}), json!({"init_images": [""]}), json!({"init_images": null})]
    {
        let response = app.post(IMG2IMG, body);
        assert_eq!((response.status, sentence(&response).as_str()), (404, "Init image not found"));
    }
    for (fields, start) in [
        (json!({"init_images": ["AAAA"]}), "init_images does not meet the constraints. "),
        (json!({"init_images": [png()], "mask": "AAAA"}), "mask does not meet the constraints. "),
        (json!({"init_images": [png()], "resize_mode": 4}), "resize_mode is 4; it must be from 0 to 3."),
        (json!({"init_images": [png()], "mask": png(), "inpainting_fill": -1}), "inpainting_fill is -1;"),
    ] {
        let response = app.post(IMG2IMG, fields);
        let sentence = sentence(&response);
        assert!(response.status == 422 && sentence.starts_with(start), "{sentence}");
    }
}

#[test]
fn a_model_that_changes_pictures_takes_no_mask() {
    let app = TestApp::launch(|_| {}, Script::editing());
    let input = input(&app, json!({"image_cfg_scale": 1.2, "denoising_strength": 0.75}));
    assert_eq!(input, json!({"init_image": png(), "image_guidance_scale": 1.2}));
    let refused = app.post(IMG2IMG, json!({"init_images": [png()], "mask": png()}));
    assert!(sentence(&refused).starts_with("mask is not supported by this model"));
}

#[test]
fn parameters_repeat_pictures_only_if_asked() {
    let app = TestApp::start();
    let parameters = |include: bool| {
        let body = json!({"init_images": [png()], "include_init_images": include});
        app.post(IMG2IMG, body).json()["parameters"].clone()
    };
    assert_eq!((&parameters(false)["init_images"], &parameters(false)["mask"]), (&Value::Null, &Value::Null));
    assert_eq!(parameters(true)["init_images"], json!([png()]));
    assert_eq!(parameters(false)["denoising_strength"], 0.75);
}
