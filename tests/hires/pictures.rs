//! Two passes that start from a picture, with a mask and without one.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use stablehand::diffusion::decode_image;
use stablehand::domain::ImageSize;

use crate::{input, pipeline};

fn png(image: RgbImage) -> String {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

/// Of another shape than what is drawn.
fn picture() -> String {
    png(RgbImage::from_fn(120, 100, |x, y| {
        let shade = |at: u32| u8::try_from(at * 2).unwrap();
        Rgb([shade(x), shade(y), if (x / 10 + y / 10) % 2 == 0 { 200 } else { 90 }])
    }))
}

/// White in the middle: columns 40 to 79 and rows 40 to 69.
fn mask() -> String {
    png(RgbImage::from_fn(120, 100, |x, y| {
        Rgb([if (40..80).contains(&x) && (40..70).contains(&y) { 255 } else { 0 }; 3])
    }))
}

fn masked(more: &Value) -> Value {
    let mut request = json!({ "prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 4,
        "scheduler": "EULER-D", "init_image": picture(), "mask": mask(), "mask_blur": 1 });
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The places at which two pictures of this width differ: their first and last columns and rows. None if there are none.
fn difference(ours: &[u8], theirs: &[u8], width: usize) -> Option<[usize; 4]> {
    assert_eq!(ours.len(), theirs.len());
    let differ = ours.chunks(3).zip(theirs.chunks(3)).enumerate().filter(|(_, (a, b))| a != b);
    differ.map(|(at, _)| (at % width, at / width)).fold(None, |bounds, (x, y)| {
        let [left, right, top, bottom] = bounds.unwrap_or([x, x, y, y]);
        Some([left.min(x), right.max(x), top.min(y), bottom.max(y)])
    })
}

#[test]
fn outside_the_mask_a_second_pass_keeps_the_client_s_picture_at_the_larger_size() {
    let mut pipeline = pipeline();
    let original = decode_image(&STANDARD.decode(picture()).unwrap()).unwrap();
    let size = |width, height| ImageSize { width, height };
    for (more, covers, kept) in [
        (json!({ "hires": { "scale": 2 } }), size(128, 128), size(128, 128)),
        (json!({ "hires": { "scale": 1.5, "upscaler": "x2" } }), size(96, 96), size(96, 96)),
        (
            json!({ "hires": { "width": 72, "height": 128, "upscaler": "lanczos" } }),
            size(128, 128),
            size(72, 128),
        ),
        (
            json!({ "hires": { "scale": 2, "strength": 1 }, "resize_mode": "latent", "inpaint_fill": "noise" }),
            size(128, 128),
            size(128, 128),
        ),
    ] {
        let drawn = pipeline.draw(&input(&pipeline, &masked(&more)), 5).unwrap().remove(0).image;
        let left = ((covers.width - kept.width) / 16 * 8) as usize;
        let enlarged = original.resize(covers).unwrap();
        let rows = enlarged.pixels.chunks(covers.width as usize * 3);
        let expected: Vec<u8> =
            rows.flat_map(|row| &row[left * 3..][..kept.width as usize * 3]).copied().collect();
        assert_eq!(drawn.size(), kept, "{more}");
        let bounds = difference(&drawn.pixels, &expected, kept.width as usize).unwrap();
        // A blur of 1 reaches 3 pixels far, and the filter one or two at its edge.
        let reach = |at: u32, of: u32, to: u32| i64::from(at * to / of);
        let wanted = [
            reach(40, 120, covers.width) - i64::try_from(left).unwrap(),
            reach(80, 120, covers.width) - i64::try_from(left).unwrap(),
            reach(40, 100, covers.height),
            reach(70, 100, covers.height),
        ];
        for (found, wanted) in bounds.iter().zip(wanted) {
            assert!((i64::try_from(*found).unwrap() - wanted).abs() <= 5, "{more}: {bounds:?} {wanted:?}");
        }
    }
}

#[test]
fn a_masked_area_is_drawn_by_both_passes_and_laid_back() {
    let mut pipeline = pipeline();
    let once = json!({ "inpaint_area": "masked", "inpaint_padding": 8 });
    let mut twice = once.clone();
    twice["hires"] = json!({ "scale": 2, "strength": 0.5 });
    let [once, twice] = [once, twice].map(|more| masked(&more));
    let original = decode_image(&STANDARD.decode(picture()).unwrap()).unwrap();
    let drawn = [&once, &twice].map(|request| {
        let input = input(&pipeline, request);
        assert_eq!(input.result_size(), original.size());
        let drawn = pipeline.draw(&input, 5).unwrap().remove(0).image;
        assert_eq!(drawn.size(), original.size());
        let [left, right, top, bottom] = difference(&drawn.pixels, &original.pixels, 120).unwrap();
        assert!(left >= 37 && right <= 82 && top >= 37 && bottom <= 72, "{left} {right} {top} {bottom}");
        drawn
    });
    assert_ne!(drawn[0], drawn[1], "the second pass has no effect");
    // The added pixels are drawn by both passes as well.
    let mut outpainted = masked(&json!({ "outpaint": { "right": 24 }, "hires": { "scale": 1.5 } }));
    outpainted["mask"] = Value::Null;
    let drawn = pipeline.draw(&input(&pipeline, &outpainted), 5).unwrap().remove(0).image;
    assert_eq!((drawn.width, drawn.height), (144, 100));
    for (ours, theirs) in drawn.pixels.chunks(144 * 3).zip(original.pixels.chunks(120 * 3)) {
        assert_eq!(ours[..110 * 3], theirs[..110 * 3]);
    }
}

#[test]
fn a_start_from_a_picture_is_enlarged_and_drawn_again() {
    let mut pipeline = pipeline();
    let plain = json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 4, "prompt_strength": 0.5,
        "init_image": picture() });
    let mut twice = plain.clone();
    twice["hires"] = json!({ "scale": 2, "strength": 0.3 });
    let twice = input(&pipeline, &twice);
    let drawn = pipeline.draw(&twice, 5).unwrap().remove(0);
    assert_eq!((drawn.image.width, drawn.image.height), (128, 128));
    let text = &drawn.texts.parameters;
    assert!(
        text.contains("Denoising strength: 0.5, Hires denoising strength: 0.3, Hires upscale: 2"),
        "{text}"
    );
    let again: Value = serde_json::from_str(&drawn.texts.request).unwrap();
    assert_eq!((&again["prompt_strength"], &again["hires"]["strength"]), (&json!(0.5), &json!(0.3)));
}
