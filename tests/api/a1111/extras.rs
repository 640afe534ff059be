//! Pictures that exist: `extra-single-image`, `extra-batch-images` and `png-info`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stablehand::diffusion::{RgbImage, decode_image};
use stablehand::domain::ImageSize;

use super::sentence;
use crate::engine::{Script, picture};
use crate::helpers::{TestApp, with_input};

const SINGLE: &str = "/sdapi/v1/extra-single-image";
const BATCH: &str = "/sdapi/v1/extra-batch-images";
const PNG_INFO: &str = "/sdapi/v1/png-info";

fn png() -> String {
    STANDARD.encode(picture(ImageSize { width: 128, height: 64 }))
}

pub fn decoded(base64: &str) -> RgbImage {
    decode_image(&STANDARD.decode(base64).unwrap()).unwrap()
}

#[test]
fn a_picture_is_enlarged_by_an_ordinary_job() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    for (fields, upscale) in [
        (json!({"upscaling_resize": "3"}), json!({"model": "Lanczos", "scale": 3.0})),
        (json!({}), json!({"model": "Lanczos", "scale": 2.0})),
        (
            json!({"resize_mode": 1, "upscaling_resize_w": 300, "upscaling_resize_h": 200}),
            json!({"model": "Lanczos", "width": 300, "height": 200}),
        ),
        (
            json!({"resize_mode": 1, "upscaling_resize_w": 300, "upscaling_resize_h": 200, "upscaling_crop": false}),
            json!({"model": "Lanczos", "height": 200}),
        ),
    ] {
        let mut body = json!({"image": png(), "upscaler_1": "Lanczos"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let (response, input) = with_input(&app, || app.post(SINGLE, body.clone()));
        assert_eq!(input["upscale"], upscale);
        assert_eq!(
            (input.as_object().unwrap().len(), decoded(input["init_image"].as_str().unwrap()).width),
            (2, 128)
        );
        let answer = response.json();
        assert_eq!((answer.as_object().unwrap().len(), &answer["html_info"]), (2, &json!("")));
        decoded(answer["image"].as_str().unwrap());
    }
}

#[test]
fn without_an_upscaler_a_picture_stays_as_it_is() {
    let app = TestApp::start();
    let uri = format!("data:image/png;base64,{}", png());
    for fields in [json!({"image": uri}), json!({"image": uri, "upscaler_1": "None", "upscaling_resize": 4})]
    {
        let answer = app.post(SINGLE, fields).json();
        let image = answer["image"].as_str().unwrap();
        assert_eq!(decoded(image).size(), ImageSize { width: 128, height: 64 });
        // With the text that says how it was made.
        let info = app.post(PNG_INFO, json!({"image": image})).json();
        assert!(info["info"].as_str().unwrap().starts_with("a dog\nSteps: 2"), "{info}");
    }
}

#[test]
fn several_pictures_are_answered_in_their_order() {
    let app = TestApp::start();
    let small = STANDARD.encode(picture(ImageSize { width: 64, height: 64 }));
    let list = json!([{"data": png(), "name": "a"}, {"data": small, "name": "b"}]);
    let answer = app.post(BATCH, json!({"imageList": list})).json();
    let images: Vec<u32> = answer["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| decoded(image.as_str().unwrap()).width)
        .collect();
    assert_eq!((images, &answer["html_info"]), (vec![128, 64], &json!("")));
}

#[test]
fn pictures_that_would_not_fit_into_memory_together_are_refused() {
    let app = TestApp::start();
    let list = |count: usize| json!(vec![json!({"data": png(), "name": "a"}); count]);
    let large = json!({"resize_mode": 1, "upscaling_resize_w": 4096, "upscaling_resize_h": 2048});
    for (count, fields, start) in [
        (9, large.clone(), "upscaling_resize_w asks for 75497472 pixels together;"),
        (64, json!({"upscaling_resize": 8, "upscaler_1": "Nearest"}), ""),
    ] {
        let mut body = json!({"imageList": list(count), "upscaler_1": "Lanczos"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let response = app.post(BATCH, body);
        match start {
            "" => assert_eq!(response.status, 200),
            start => assert!(response.status == 422 && sentence(&response).starts_with(start)),
        }
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let app = TestApp::start();
    for (target, fields, start) in [
        (SINGLE, json!({}), "image is a required input."),
        (SINGLE, json!({"image": "AAAA"}), "image does not meet the constraints."),
        (SINGLE, json!({"image": "http://a.example/b.png"}), "image cannot be a URL"),
        (SINGLE, json!({"image": png(), "upscaler_1": "LDSR"}), "upscaler_1 does not meet the constraints."),
        (
            SINGLE,
            json!({"image": png(), "upscaler_1": "Lanczos", "upscaling_resize": 100}),
            "upscaling_resize does not meet the constraints. It is 100",
        ),
        (SINGLE, json!({"image": png(), "gfpgan_visibility": 1}), "gfpgan_visibility should be 0"),
        (
            SINGLE,
            json!({"image": png(), "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5}),
            "upscaler_2 is not supported",
        ),
        (BATCH, json!({"image": png()}), "imageList is a required input."),
        (BATCH, json!({"imageList": [{"name": "a"}]}), "imageList should hold objects"),
        (BATCH, json!({"imageList": vec![json!({"data": ""}); 65]}), "imageList has 65 pictures;"),
    ] {
        let response = app.post(target, fields);
        let sentence = sentence(&response);
        assert!(response.status == 422 && sentence.starts_with(start), "{sentence}");
    }
}

#[test]
fn a_pictures_text_is_parsed() {
    let app = TestApp::start();
    let answer = app.post(PNG_INFO, json!({"image": png()})).json();
    let expected = json!({
        "info": "a dog\nSteps: 2, Size: 128x64, Model: scripted, Version: stablehand", "items": {},
        "parameters": {
            "Prompt": "a dog", "Negative prompt": "", "Steps": "2", "Size-1": "128", "Size-2": "64", "Model": "scripted",
            "Version": "stablehand", "Clip skip": "1", "RNG": "GPU", "Schedule type": "Automatic",
        },
    });
    assert_eq!(answer, expected);
    // A JPEG, or a PNG without a text.
    let plain = stablehand::diffusion::encode_png(&RgbImage { width: 1, height: 1, pixels: vec![0; 3] }, &[]);
    let answer = app.post(PNG_INFO, json!({"image": STANDARD.encode(plain.unwrap())})).json();
    assert_eq!(answer, json!({"info": "", "items": {}, "parameters": {}}));
    let refused = app.post(PNG_INFO, json!({"image": Value::Null}));
    assert_eq!((refused.status, sentence(&refused).as_str()), (422, "image is a required input."));
}
