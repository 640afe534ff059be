//! `POST /v1/images/edits`.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use serde_json::{Value, json};
use stablehand::diffusion::decode_image;

use super::forms::TestForm;
use super::{EDITS, error, with_input};
use crate::engine::Script;
use crate::helpers::TestApp;

fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture without transparency.
fn opaque() -> Vec<u8> {
    file(RgbImage::from_pixel(200, 128, Rgb([10, 200, 30])), ImageFormat::Png)
}

/// A picture whose left half is transparent.
fn half_transparent() -> Vec<u8> {
    let half = |x: u32| Rgba([9, 9, 9, if x < 64 { 0 } else { 255 }]);
    file(RgbaImage::from_fn(128, 64, |x, _| half(x)), ImageFormat::Png)
}

fn with_image(image: &[u8]) -> TestForm {
    TestForm::default().text("prompt", "a dog").file("image", "upload", image)
}

/// The `input` of the job that a form makes.
fn input_of(app: &TestApp, form: &TestForm) -> Value {
    let (response, input) = with_input(app, || form.post(app, EDITS));
    assert_eq!(response.status, 200, "{}", response.text());
    input
}

/// The mask of an input: for each pixel of its first row, whether it is white.
fn first_row(input: &Value) -> Vec<bool> {
    let mask = decode_image(&STANDARD.decode(input["mask"].as_str().unwrap()).unwrap()).unwrap();
    let row = &mask.pixels[..mask.width as usize * 3];
    row.chunks_exact(3).map(|pixel| pixel == [255; 3]).collect()
}

#[test]
fn a_picture_without_a_mask_is_changed_as_a_whole() {
    let app = TestApp::start();
    let input = input_of(&app, &with_image(&opaque()));
    let expected = json!({
        "prompt": "a dog", "num_outputs": 1, "width": 192, "height": 128, "prompt_strength": 0.75,
        "init_image": STANDARD.encode(opaque()),
    });
    assert_eq!(input, expected);
    let answer = with_image(&opaque()).post(&app, EDITS).json();
    assert_eq!(answer["size"], "192x128");
    assert_eq!(answer["data"][0].as_object().unwrap().len(), 2);
}

#[test]
fn the_transparent_part_of_the_mask_is_repainted() {
    let app = TestApp::start();
    let input = input_of(&app, &with_image(&opaque()).file("mask", "blob", &half_transparent()));
    assert_eq!(input["init_image"], STANDARD.encode(opaque()));
    assert_eq!(first_row(&input), [[true; 64], [false; 64]].concat());
}

#[test]
fn the_white_part_of_a_mask_without_transparency_is_repainted() {
    let app = TestApp::start();
    let grey = file(RgbImage::from_pixel(8, 8, Rgb([255; 3])), ImageFormat::Jpeg);
    let painted = file(RgbaImage::from_pixel(8, 8, Rgba([255; 4])), ImageFormat::Png);
    for mask in [grey, painted] {
        let input = input_of(&app, &with_image(&opaque()).file("mask", "mask.png", &mask));
        assert_eq!(input["mask"], STANDARD.encode(&mask));
    }
}

#[test]
fn without_a_mask_the_transparent_part_of_the_picture_is_repainted() {
    let app = TestApp::start();
    let input = input_of(&app, &with_image(&half_transparent()));
    assert_eq!(first_row(&input), [[true; 64], [false; 64]].concat());
}

#[test]
fn a_model_that_changes_pictures_as_told_gets_only_what_was_sent() {
    let app = TestApp::launch(|_| {}, Script::editing());
    let input = input_of(&app, &with_image(&half_transparent()).text("image_guidance_scale", "1.8"));
    let expected = json!({
        "prompt": "a dog", "num_outputs": 1, "width": 128, "height": 64, "image_guidance_scale": 1.8,
        "init_image": STANDARD.encode(half_transparent()),
    });
    assert_eq!(input, expected);
    let sent = with_image(&opaque()).text("strength", "0.5");
    assert_eq!(input_of(&app, &sent)["prompt_strength"], json!(0.5));
    let masked = with_image(&opaque()).file("mask", "mask.png", &half_transparent()).post(&app, EDITS);
    assert_eq!((masked.status, &error(&masked)["param"]), (400, &json!("mask")));
}

#[test]
fn a_mask_can_be_inverted() {
    let app = TestApp::start();
    let form = with_image(&opaque()).file("mask", "mask.png", &half_transparent());
    assert_eq!(input_of(&app, &form.text("mask_invert", "true"))["mask_invert"], json!(true));
}

#[test]
fn a_pictures_url_needs_a_size() {
    let app = TestApp::start();
    let url = "http://127.0.0.1/none.png";
    for size in [json!({}), json!({"size": "auto"}), json!({"width": 64})] {
        let mut body = json!({"prompt": "a dog", "images": [url]});
        body.as_object_mut().unwrap().extend(size.as_object().unwrap().clone());
        let response = app.post(EDITS, body);
        let error = error(&response);
        assert_eq!((response.status, &error["param"]), (400, &json!("size")), "{size}");
        assert!(
            error["message"].as_str().unwrap().starts_with("size is a required input for a picture's URL")
        );
    }
    for size in [json!({"size": "64x128"}), json!({"width": 64, "height": "128"})] {
        let mut body = json!({"prompt": "a dog", "images": [url]});
        body.as_object_mut().unwrap().extend(size.as_object().unwrap().clone());
        // It was taken: the job fails, because the address is not a public one.
        let response = app.post(EDITS, body);
        assert_eq!((response.status, &error(&response)["code"]), (500, &json!("job_failed")), "{size}");
    }
}

#[test]
fn a_list_of_pictures_gives_the_first_and_parts_come_in_any_order() {
    let app = TestApp::start();
    for name in ["image[]", "image[0]", "image"] {
        let form = TestForm::default()
            .text("response_format", "b64_json")
            .file(name, "one.png", &opaque())
            .file(name, "two.png", &half_transparent())
            .text("size", "512x512")
            .text("n", "2")
            .text("strength", "0.5")
            .text("model", "gpt-image-1")
            .text("input_fidelity", "high")
            .text("prompt", "a dog");
        let input = input_of(&app, &form);
        let expected = json!({
            "prompt": "a dog", "num_outputs": 2, "width": 512, "height": 512, "prompt_strength": 0.5,
            "init_image": STANDARD.encode(opaque()),
        });
        assert_eq!(input, expected, "{name}");
    }
}

#[test]
fn json_with_data_uris_is_taken_too() {
    let app = TestApp::start();
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(opaque()));
    for images in [json!(uri), json!([uri]), json!([{"image_url": uri}]), json!({"image_url": {"url": uri}})]
    {
        let body = json!({"prompt": "a dog", "images": images, "mask": null});
        let (response, input) = with_input(&app, || app.post(EDITS, body.clone()));
        assert_eq!((response.status, &input["init_image"]), (200, &json!(STANDARD.encode(opaque()))));
    }
}

#[test]
fn an_edit_without_a_usable_picture_is_refused() {
    let app = TestApp::start();
    let form = |image: &[u8]| with_image(image).post(&app, EDITS);
    let cut = &opaque()[..40];
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(opaque()));
    let json = |fields: Value| app.post(EDITS, fields);
    for (response, param, message) in [
        (TestForm::default().text("prompt", "a dog").post(&app, EDITS), "image", "image is a required input"),
        (json(json!({"prompt": "a dog"})), "image", "image is a required input"),
        (json(json!({"prompt": "a dog", "images": []})), "image", "image is a required input"),
        (form(b"no picture"), "image", "It is not a picture in a supported format"),
        (form(b""), "image", "It is empty."),
        (form(cut), "image", "image does not meet the constraints."),
        (
            json(json!({"prompt": "a dog", "images": ["file:///etc/passwd"]})),
            "images",
            "neither an http(s) URL",
        ),
        (
            json(json!({"prompt": "a dog", "image": {"file_id": "a"}})),
            "image",
            "image should be a picture's URL",
        ),
        (
            json(json!({"prompt": "a dog", "image": uri, "mask": "https://a.example/m.png"})),
            "mask",
            "mask cannot be a URL",
        ),
        (
            with_image(&opaque()).file("mask", "m", b"no picture").post(&app, EDITS),
            "mask",
            "cannot be decoded",
        ),
        (
            TestForm::default().file("image", "a", &opaque()).post(&app, EDITS),
            "prompt",
            "prompt is a required input.",
        ),
    ] {
        let error = error(&response);
        assert_eq!((response.status, &error["param"]), (400, &json!(param)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
    }
}
