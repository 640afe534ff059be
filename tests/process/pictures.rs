//! Pictures that start from pictures, sent in the body or by URL.

use std::io::{Cursor, Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::helpers::{Server, data_dir, download};

const SIDE: u32 = 128;

/// Serves `files` by path.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let path = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let (_, file) = files.iter().find(|(name, _)| *name == path).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
            stream.write_all(&[head.as_bytes(), file].concat()).unwrap();
        }
    });
    base
}

fn png(image: RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn data_uri(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

/// Draws `input`. Returns the PNG file and the parameters in its text.
fn draw(server: &Server, input: &Value) -> (Vec<u8>, Value) {
    let body = server.wait(&server.submit(input).unwrap());
    assert_eq!(body["status"], "COMPLETED", "{body}");
    assert_eq!(body["input"], *input, "the input is echoed");
    let file = download(body["output"][0]["image"].as_str().unwrap());
    let reader = png::Decoder::new(Cursor::new(&file)).read_info().unwrap();
    let texts = reader.info();
    let utf8 = texts.utf8_text.iter().map(|text| (text.keyword.clone(), text.get_text().unwrap()));
    let latin1 = texts.uncompressed_latin1_text.iter().map(|text| (text.keyword.clone(), text.text.clone()));
    let (_, made) = utf8.chain(latin1).find(|(keyword, _)| keyword == "stablehand").unwrap();
    (file, serde_json::from_str(&made).unwrap())
}

fn pixels(file: &[u8]) -> RgbImage {
    image::load_from_memory(file).unwrap().to_rgb8()
}

/// The mean difference of the pixels in the columns that `inside` selects.
fn distance(one: &RgbImage, other: &RgbImage, inside: impl Fn(u32) -> bool) -> f64 {
    assert_eq!(one.dimensions(), other.dimensions());
    let chosen = one.enumerate_pixels().filter(|(x, _, _)| inside(*x));
    let distances: Vec<f64> = chosen
        .flat_map(|(x, y, a)| {
            a.0.into_iter().zip(other.get_pixel(x, y).0).map(|(a, b)| f64::from(a.abs_diff(b)))
        })
        .collect();
    distances.iter().sum::<f64>() / f64::from(u32::try_from(distances.len()).unwrap())
}

#[test]
fn a_picture_and_its_mask_may_be_in_the_body_or_at_a_url() {
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_ALLOW_ADDRESSES", "127.0.0.1");
    });
    let plain = json!({"prompt": "a red heart", "width": SIDE, "height": SIDE, "seed": 7,
                       "num_inference_steps": 10, "scheduler": "EULER-D"});
    let (heart_file, made) = draw(&server, &plain);
    for field in ["prompt_strength", "mask_invert", "mask_blur", "init_image", "mask"] {
        assert!(made.get(field).is_none(), "{field} of a picture from text alone: {made}");
    }
    let heart = pixels(&heart_file);
    // The right half is white, so it is repainted.
    let right = |x: u32| x >= SIDE / 2;
    let mask_file = png(RgbImage::from_fn(SIDE, SIDE, |x, _| Rgb([if right(x) { 255 } else { 0 }; 3])));
    let base = serve(vec![("/heart.png", heart_file.clone()), ("/mask.png", mask_file.clone())]);
    let from = |fields: Value| {
        let mut input = plain.clone();
        input["prompt"] = json!("a green tree");
        input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        draw(&server, &input)
    };

    let (kept, made) = from(json!({"init_image": data_uri(&heart_file), "prompt_strength": 0}));
    assert!(distance(&pixels(&kept), &heart, |_| true) < 4.0, "strength 0 is the picture itself");
    assert_eq!(made["prompt_strength"], 0.0);
    for field in ["mask_invert", "mask_blur", "init_image", "mask"] {
        assert!(made.get(field).is_none(), "{field} of a picture without a mask: {made}");
    }

    let (by_body, made) = from(json!({
        "init_image": data_uri(&heart_file), "mask": data_uri(&mask_file), "prompt_strength": 1, "mask_blur": 0,
    }));
    assert_eq!(made["mask_invert"], false);
    assert_eq!(made["mask_blur"], 0);
    let painted = pixels(&by_body);
    assert!(distance(&painted, &heart, |x| !right(x)) < 0.5, "black is kept");
    assert!(distance(&painted, &heart, right) > 10.0, "white is repainted");

    let (by_address, _) = from(json!({
        "init_image": format!("{base}/heart.png"), "mask": format!("{base}/mask.png"),
        "prompt_strength": 1, "mask_blur": 0,
    }));
    assert_eq!(by_address, by_body);

    let (mixed, made) = from(json!({
        "init_image": format!("{base}/heart.png"), "mask": data_uri(&mask_file), "prompt_strength": 1,
        "mask_invert": true,
    }));
    assert_eq!(made["mask_invert"], true);
    let mixed = pixels(&mixed);
    assert!(
        distance(&mixed, &heart, |x| !right(x)) > distance(&mixed, &heart, right),
        "mask_invert repaints the other half"
    );
    assert_eq!(server.terminate().code(), Some(0));
}
