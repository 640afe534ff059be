//! The objects `hires` and `upscale` of a request's `input`.

use serde_json::json;
use utoipa::openapi::{Object, ObjectBuilder};

use super::schema::{choice, integer, number, object, or_null, text};
use crate::domain::{
    MAX_ENLARGED_SIDE, MAX_PROMPT_BYTES, MAX_SCALE, MAX_STEPS, SchedulerKind, Spacing, Upscaler,
};

/// Every field of the objects, by its name in `input`.
pub(super) fn fields() -> Vec<(&'static str, Object)> {
    vec![("hires", hires()), ("upscale", upscale())]
}

fn sized(about: &str, scale: f64) -> ObjectBuilder {
    let side = |about: &str| or_null(integer(about).minimum(Some(8)).maximum(Some(MAX_ENLARGED_SIDE)));
    object(about)
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
        .property(
            "scale",
            or_null(
                number("The factor by which both sides grow")
                    .minimum(Some(1))
                    .maximum(Some(MAX_SCALE))
                    .default(Some(json!(scale))),
            ),
        )
        .property("width", side("In pixels, instead of scale; without height, the shape stays"))
        .property("height", side("In pixels, instead of scale; with width, the picture is cut"))
}

fn hires() -> Object {
    let prompt = |about: &str| or_null(text(about).max_length(Some(MAX_PROMPT_BYTES)));
    let schedulers = SchedulerKind::ALL.map(SchedulerKind::as_str).join(", ");
    let latent: Vec<_> = Upscaler::built_in().collect();
    let hires = sized("Draws the picture, enlarges it, and draws it again at that size; with a mask, both times only what it shows", 2.0)
        .property(
            "upscaler",
            or_null(
                text(&format!("How it is enlarged: {}, or an upscaler model on the server", latent.join(", ")))
                    .default(Some(json!(Upscaler::LATENT.as_str()))),
            ),
        )
        .property(
            "steps",
            or_null(integer("Steps of the second pass, which makes the last `strength` of them; 0 means as many as the first").minimum(Some(0)).maximum(Some(MAX_STEPS))),
        )
        .property(
            "strength",
            or_null(number("How much the second pass may change").minimum(Some(0)).maximum(Some(1)).default(Some(json!(0.75)))),
        )
        .property("prompt", prompt("The prompt of the second pass; the same if absent"))
        .property("negative_prompt", prompt("The negative prompt of the second pass; the same if absent"))
        .property(
            "guidance_scale",
            or_null(number("Guidance of the second pass; the same if absent").exclusive_minimum(Some(0)).maximum(Some(20))),
        )
        .property("scheduler", or_null(text(&format!("The scheduler of the second pass, such as {schedulers}; the same if absent"))))
        .property("spacing", or_null(choice("How the second pass spaces its steps", Spacing::ALL.map(Spacing::as_str))));
    or_null(hires)
}

fn upscale() -> Object {
    or_null(sized("Enlarges `init_image` and draws nothing. No other fields are allowed", 4.0).property(
        "model",
        or_null(text("lanczos, nearest, or an upscaler model on the server").default(Some(json!("lanczos")))),
    ))
}
