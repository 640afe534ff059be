//! Inpainting and outpainting: sizes, error sentences and warnings.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};

use super::*;

const URL: &str = "https://example.org/fox.png";

fn png(width: u32, height: u32) -> String {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(RgbImage::new(width, height)).write_to(&mut bytes, ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

fn parsed(fields: &Value, rules: &InputRules) -> Result<GenerationInput, Vec<String>> {
    let mut request = json!({"prompt": "a fox"});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    GenerationInput::parse(&request, rules).map_err(|violations| violations.0)
}

fn parse(fields: &Value) -> Result<GenerationInput, Vec<String>> {
    parsed(fields, &InputRules::default())
}

#[test]
fn outpainting_fills_with_the_surroundings_at_the_size_of_the_result() {
    let picture = png(300, 200);
    let input = parse(&json!({"init_image": picture, "outpaint": {"left": 100, "top": 60}})).unwrap();
    let outpaint = Outpaint { left: 100, top: 60, ..Outpaint::default() };
    let expected =
        Inpainting { fill: InpaintFill::Surroundings, outpaint: Some(outpaint), ..Inpainting::default() };
    assert_eq!((input.inpainting, input.mask_blur), (expected, Some(4)));
    assert_eq!(input.size, ImageSize { width: 384, height: 256 });
    assert_eq!(input.result_size(), ImageSize { width: 400, height: 260 });

    // A large picture is drawn smaller, or only around its rim at the usual size.
    let large = json!({"init_image": png(2000, 1000), "outpaint": {"right": 500}});
    let size = parse(&large).unwrap().size;
    assert!(
        size.width * size.height <= crate::domain::MAX_PIXELS && size.width > 2 * size.height,
        "{size:?}"
    );
    let masked = parse(&json!({"init_image": picture, "outpaint": {"left": 9}, "inpaint_area": "masked"}));
    assert_eq!(masked.unwrap().size, GenerationInput::new("").size);
    let named = parse(&json!({"init_image": URL, "outpaint": {"left": 9}, "width": 512, "height": 64}));
    assert_eq!(named.unwrap().size, ImageSize { width: 512, height: 64 });
}

#[test]
fn what_cannot_be_done_is_refused_in_a_sentence() {
    for (fields, sentence) in [
        (json!({"outpaint": {"left": 1}}), "outpaint does not meet the constraints. It needs an init_image."),
        (
            json!({"init_image": png(1, 1), "outpaint": {}}),
            "outpaint does not meet the constraints. It adds no pixels; name some of left, right, top and bottom.",
        ),
        (json!({"init_image": png(1, 1), "outpaint": 9}), "outpaint should be dict type, not int."),
        (
            json!({"init_image": png(1, 1), "outpaint": {"left": 2049}}),
            "outpaint.left does not meet the constraints. It is 2049; it must be a whole number from 0 to 2048.",
        ),
        (
            json!({"init_image": png(1, 1), "outpaint": {"left": 1, "up": 1}}),
            "Unexpected input. outpaint.up is not a valid input option.",
        ),
        (
            json!({"init_image": URL, "outpaint": {"left": 1}}),
            "width does not meet the constraints. It is required with outpaint if init_image is a URL and inpaint_area is whole.",
        ),
        (
            json!({"init_image": png(4090, 8), "outpaint": {"left": 7}}),
            "init_image does not meet the constraints. The result has 4097 × 8 pixels; with this inpainting, each side may have 4096 at most: send a smaller picture.",
        ),
        (
            json!({"init_image": png(4096, 4096), "mask": URL, "inpaint_area": "masked", "num_outputs": 5}),
            "init_image does not meet the constraints. 5 results of 4096 × 4096 have more than 67108864 pixels together; ask for fewer, or send a smaller picture.",
        ),
        (
            json!({"init_image": URL, "mask": URL, "inpaint_fill": "blur"}),
            "inpaint_fill does not meet the constraints. It is \"blur\"; it must be one of original, surroundings, noise, nothing.",
        ),
        (json!({"init_image": URL, "resize_mode": 1}), "resize_mode should be str type, not int."),
    ] {
        assert_eq!(parse(&fields).unwrap_err(), [sentence], "{fields}");
    }
    let edits = InputRules { edits_images: true, ..InputRules::default() };
    let refused =
        parsed(&json!({"init_image": URL, "outpaint": {"left": 1}, "resize_mode": "latent"}), &edits);
    assert_eq!(
        refused.unwrap_err(),
        [
            "outpaint is not supported by this model, because InstructPix2Pix changes the whole picture.",
            "resize_mode does not meet the constraints. This model (InstructPix2Pix) supports stretch, crop and fill.",
        ]
    );
}

#[test]
fn fields_without_effect_are_said() {
    let warned = |fields: Value| parse(&fields).unwrap().warnings;
    assert_eq!(
        warned(json!({"init_image": URL, "mask_blur": 4, "inpaint_fill": "noise"})),
        ["mask_blur has no effect without a mask.", "inpaint_fill has no effect without a mask."]
    );
    assert_eq!(
        warned(json!({"init_image": URL, "mask": URL, "inpaint_padding": 4})),
        ["inpaint_padding has no effect without inpaint_area masked."]
    );
    assert_eq!(
        warned(json!({"init_image": URL, "mask": URL, "inpaint_area": "masked", "resize_mode": "crop"})),
        ["resize_mode has no effect with inpaint_area masked, which keeps the picture's shape."]
    );
    assert_eq!(warned(json!({"resize_mode": "crop"})), ["resize_mode has no effect without an init_image."]);
    let all = json!({"init_image": URL, "mask": URL, "mask_blur": 3, "mask_invert": true, "inpaint_area": "masked",
        "inpaint_padding": 8, "inpaint_fill": "nothing"});
    assert!(warned(all).is_empty());
}

#[test]
fn the_request_for_a_picture_repeats_the_fields() {
    for fields in [
        json!({"init_image": png(90, 70), "mask": URL, "inpaint_area": "masked", "inpaint_padding": 8, "inpaint_fill": "noise"}),
        json!({"init_image": png(90, 70), "outpaint": {"left": 3, "bottom": 5}}),
        json!({"init_image": png(90, 70), "outpaint": {"left": 3}, "inpaint_fill": "original"}),
        json!({"init_image": png(90, 70), "resize_mode": "crop"}),
    ] {
        let input = parse(&fields).unwrap();
        let mut again = json!({"init_image": fields["init_image"], "mask": fields.get("mask"),
            "width": input.size.width, "height": input.size.height, "mask_blur": input.mask_blur});
        input.inpainting.write_to(&mut again);
        assert_eq!(parse(&again).unwrap(), input, "{again}");
    }
    let mut plain = json!({});
    Inpainting::default().write_to(&mut plain);
    assert_eq!(plain, json!({}));
}

#[test]
fn the_infotext_has_a1111_s_words() {
    let inpainting =
        Inpainting { area: InpaintArea::Masked, fill: InpaintFill::Surroundings, ..Inpainting::default() };
    let items: Vec<_> = inpainting
        .infotext(Some(4), true)
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        items,
        [
            "Mask blur: 4",
            "Mask mode: Inpaint not masked",
            "Inpaint area: Only masked",
            "Masked area padding: 32",
            "Masked content: fill"
        ]
    );
    assert!(Inpainting::default().infotext(None, false).is_empty());
}
