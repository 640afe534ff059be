//! The pictures themselves: sizes beyond the limit, and formats.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, ImageReader};
use serde_json::{Value, json};
use stablehand::diffusion::image::png_texts;

use super::GENERATIONS;
use crate::client::{Request, Response};
use crate::engine::Script;
use crate::helpers::TestApp;

fn drawing() -> TestApp {
    TestApp::launch(|_| {}, Script::drawing())
}

/// The format and size of a picture file.
fn look(file: &[u8]) -> (ImageFormat, (u32, u32)) {
    let reader = ImageReader::new(Cursor::new(file)).with_guessed_format().unwrap();
    let format = reader.format().unwrap();
    (format, reader.into_dimensions().unwrap())
}

fn base64_of(body: &Value) -> Vec<u8> {
    STANDARD.decode(body["data"][0]["b64_json"].as_str().unwrap()).unwrap()
}

fn fetch(app: &TestApp, body: &Value) -> Response {
    let url = body["data"][0]["url"].as_str().unwrap();
    let target = url.strip_prefix(&format!("http://127.0.0.1:{}", app.port)).unwrap();
    Request::new("GET", target).send(app.port)
}

#[test]
fn a_size_beyond_the_limit_is_drawn_smaller_and_enlarged() {
    let app = drawing();
    for (size, pixels, drawn) in [
        ("512x512", (512, 512), (512, 512)),
        ("1024x1024", (1024, 1024), (832, 832)),
        ("1792x1024", (1792, 1024), (1152, 640)),
        ("912*512", (912, 512), (896, 512)),
        ("300x200", (300, 200), (256, 192)),
    ] {
        let body = app.post(GENERATIONS, json!({"prompt": "a dog", "size": size})).json();
        assert_eq!(body["size"], size.replace('*', "x"));
        let file = base64_of(&body);
        assert_eq!(look(&file), (ImageFormat::Png, pixels), "{size}");
        let text = &png_texts(&file).unwrap()[0].1;
        let said = format!("Drawn at: \"{}x{}, enlarged\"", drawn.0, drawn.1);
        assert_eq!(text.contains(&said), pixels != drawn, "{text}");
        assert!(text.contains(&format!("Size: {}x{},", pixels.0, pixels.1)), "{text}");
        // By its URL it is the same file.
        assert_eq!(fetch(&app, &body).body, file, "{size}");
    }
}

#[test]
fn pictures_come_in_the_format_that_was_asked() {
    let app = drawing();
    for (name, format, kind) in [
        ("png", ImageFormat::Png, "image/png"),
        ("jpeg", ImageFormat::Jpeg, "image/jpeg"),
        ("jpg", ImageFormat::Jpeg, "image/jpeg"),
        ("webp", ImageFormat::WebP, "image/webp"),
    ] {
        let body = json!({"prompt": "a dog", "output_format": name, "output_compression": 80});
        let body = app.post(GENERATIONS, body).json();
        assert_eq!(body["output_format"], name.replace("jpg", "jpeg"));
        let file = base64_of(&body);
        assert_eq!(look(&file), (format, (512, 512)), "{name}");
        let fetched = fetch(&app, &body);
        assert_eq!(fetched.header("content-type"), Some(kind));
        assert_eq!(fetched.body, file, "{name}");
        // The text is there: in EXIF it is UTF-16.
        let steps = if format == ImageFormat::Png { b"Steps".to_vec() } else { b"\0S\0t\0e\0p\0s".to_vec() };
        assert!(file.windows(steps.len()).any(|window| window == steps), "{name}");
    }
}

#[test]
fn a_url_of_an_enlarged_picture_is_signed_whole() {
    let app = drawing();
    let body =
        json!({"prompt": "a dog", "size": "1024x1024", "output_format": "jpeg", "response_format": "url"});
    let url = app.post(GENERATIONS, body).json()["data"][0]["url"].as_str().unwrap().to_owned();
    let target = url.strip_prefix(&format!("http://127.0.0.1:{}", app.port)).unwrap();
    let status = |target: &str| Request::new("GET", target).send(app.port).status;
    assert_eq!(status(target), 200);
    assert_eq!(Request::new("HEAD", target).send(app.port).status, 200);
    for (from, to) in [
        ("1024x1024", "4096x4096"),
        ("-q100", "-q50"),
        (".jpeg", ".png"),
        ("signature=", "signature=A"),
        ("/0/", "/1/"),
    ] {
        assert!(target.contains(from), "{target}");
        assert_eq!(status(&target.replacen(from, to, 1)), 403, "{from} to {to}");
    }
    app.advance_ms(30 * 60_000);
    assert_eq!(status(target), 404);
}
