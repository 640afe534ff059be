//! The fields of `input` that say how a picture is laid out and repainted, and how the noise differs from the seed's own.

use serde_json::json;
use utoipa::openapi::Object;
use utoipa::openapi::schema::AdditionalProperties;

use super::input::{bounded, fraction};
use super::schema::{choice, flag, integer, object, or_null};
use crate::domain::{
    InpaintArea, InpaintFill, Inpainting, InputRules, MAX_INPAINT_PADDING, MAX_OUTPAINT, MAX_PIXELS,
    MIN_SIDE, Outpaint, ResizeMode,
};

pub(super) fn inpainting() -> Vec<(&'static str, Object)> {
    let word = |about: &str, words: Vec<&'static str>, default: Option<&str>| {
        let field = choice(about, words);
        or_null(match default {
            Some(word) => field.default(Some(json!(word))),
            None => field,
        })
    };
    vec![
        (
            "inpaint_area",
            word(
                "What is drawn of init_image: all of it, or only the surroundings of the mask, at the requested size. The result then has the size of init_image",
                InpaintArea::ALL.map(|(name, _)| name).to_vec(),
                Some("whole"),
            ),
        ),
        (
            "inpaint_padding",
            bounded(
                "With inpaint_area masked: the pixels around the mask that are drawn with it",
                0,
                MAX_INPAINT_PADDING,
                &json!(Inpainting::default().padding),
            ),
        ),
        (
            "inpaint_fill",
            word(
                "What the repainted area holds before it is drawn. original if absent, with outpaint surroundings",
                InpaintFill::ALL.map(|(name, _)| name).to_vec(),
                None,
            ),
        ),
        (
            "resize_mode",
            word(
                "How init_image becomes a picture of the requested size: stretched, cut, framed with its edges, or stretched in its latents",
                ResizeMode::ALL.map(|(name, _)| name).to_vec(),
                Some("stretch"),
            ),
        ),
        ("outpaint", outpaint()),
    ]
}

fn outpaint() -> Object {
    let side = |side: &str| bounded(&format!("Pixels on this side ({side})"), 0, MAX_OUTPAINT, &json!(0));
    let about = "Pixels that are added to init_image and painted. The result has them, too";
    let sides =
        Outpaint::SIDES.into_iter().fold(object(about), |sides, name| sides.property(name, side(name)));
    or_null(sides.additional_properties(Some(AdditionalProperties::FreeForm(false))))
}

pub(super) fn variations(rules: &InputRules) -> Vec<(&'static str, Object)> {
    let side = |about: &str| {
        or_null(
            integer(about)
                .minimum(Some(MIN_SIDE))
                .maximum(Some(MAX_PIXELS / MIN_SIDE))
                .multiple_of(Some(rules.grid)),
        )
    };
    vec![
        (
            "subseed",
            or_null(
                integer("The seed of the noise that is blended into the first picture; each next picture adds 1. Absent or -1 means random; the PNG says which seed it was")
                    .minimum(Some(-1))
                    .maximum(usize::try_from(u64::MAX).ok()),
            ),
        ),
        (
            "subseed_strength",
            fraction("How much of that noise is blended in. Above 0, all pictures have the same seed", &json!(0)),
        ),
        ("seed_resize_width", side("The width of the picture whose noise the seed stands for. width if absent")),
        ("seed_resize_height", side("The height of the picture whose noise the seed stands for. height if absent")),
        (
            "tiling",
            or_null(flag("Draws a picture whose opposite edges fit together").default(Some(json!(false)))),
        ),
    ]
}
