//! The `input` of a request, field by field, with the limits that the parser enforces.

use std::collections::BTreeSet;
use std::iter;

use serde_json::json;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder};

use super::inpainting::{inpainting, variations};
use super::schema::{choice, flag, integer, number, object, or_null, text};
use crate::domain::{
    ControlMode, ControlResize, GenerationInput, InputRules, MAX_CACHE_INTERVAL, MAX_CONTROL_WEIGHT,
    MAX_MASK_BLUR, MAX_OUTPUTS, MAX_PIXELS, MAX_PROMPT_BYTES, MAX_STEPS, MIN_SIDE, NoiseSource, Preprocessor,
    SchedulerKind, Spacing, Vae,
};

fn example(rules: &InputRules) -> serde_json::Value {
    json!({
        "prompt": "a red fox in the snow", "negative_prompt": "blurry", "width": 512, "height": 512,
        "num_inference_steps": 25, "guidance_scale": 7.5, "scheduler": rules.scheduler.as_str(), "seed": 42,
    })
}

/// The `input` of a request. Unknown keys are refused.
pub(super) fn input(rules: &InputRules) -> Object {
    let input =
        object("What to draw. A field that is absent or null has its default. Unknown fields are refused.");
    fields(rules)
        .into_iter()
        .fold(input, |input, (name, field)| input.property(name, field))
        .required("prompt")
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
        .examples([example(rules)])
        .build()
}

const LORA: &str = "A LoRA on the server, by name or file name. A prompt can name LoRAs too, and several: \
`<lora:name:0.8>`, or `<lora:name:0.5:1>` with one scale for the text encoder and one for the UNet. `:lbw=OUTD` behind the \
scale weighs the blocks of the model.";
const SCHEDULERS: &str = "The algorithm that removes the noise. The names that diffusers and A1111 use work as \
well.";

const SPACINGS: &str = "How the steps are spaced. Not every scheduler takes every spacing; a 400 names those that it takes. \
Absent means as the model's own files say.";

/// Every name of every scheduler: the contract's first, then those of A1111 and the aliases.
fn scheduler_names() -> Vec<&'static str> {
    let mut names = SchedulerKind::ALL.map(SchedulerKind::as_str).to_vec();
    for kind in SchedulerKind::ALL {
        let others = iter::once(kind.a1111_name()).chain(kind.aliases().iter().copied());
        names.extend(others.filter(|name| *name != kind.as_str()));
    }
    names
}

/// Every field of `input` by its name, the most used first.
pub fn fields(rules: &InputRules) -> Vec<(&'static str, Object)> {
    let defaults = GenerationInput::new("");
    let side = |about: &str, default: u32| {
        or_null(
            integer(about)
                .minimum(Some(MIN_SIDE))
                .maximum(Some(MAX_PIXELS / MIN_SIDE))
                .multiple_of(Some(rules.grid))
                .default(Some(json!(default))),
        )
    };
    let pixels = format!("width × height is at most {MAX_PIXELS}");
    let mut fields = vec![
        (
            "prompt",
            text("What the picture shows; the length counts bytes")
                .max_length(Some(MAX_PROMPT_BYTES))
                .build(),
        ),
        (
            "negative_prompt",
            or_null(text("What the picture does not show").max_length(Some(MAX_PROMPT_BYTES))),
        ),
        (
            "wildcards",
            or_null(
                flag("Whether the seed draws {a|b} and the wildcards __name__ in both prompts")
                    .default(Some(json!(false))),
            ),
        ),
        ("width", side(&format!("In pixels; {pixels}"), defaults.size.width)),
        ("height", side(&format!("In pixels; {pixels}"), defaults.size.height)),
        ("num_outputs", bounded("Pictures to draw", 1, MAX_OUTPUTS.into(), &json!(defaults.num_outputs))),
        (
            "num_inference_steps",
            bounded("Denoising steps", 1, MAX_STEPS.into(), &json!(defaults.num_inference_steps)),
        ),
        (
            "cache_interval",
            bounded(
                "Every how many steps the whole UNet is called. The steps between reuse its deep features: they are faster \
                 and less exact",
                1,
                MAX_CACHE_INTERVAL.into(),
                &json!(defaults.cache_interval),
            ),
        ),
    ];
    fields.extend(guidance(rules));
    fields.extend(drawing(rules));
    fields.extend(inpainting());
    fields.extend(variations(rules));
    fields.extend(super::enlarging::fields());
    fields
}

/// The fields that say how closely to follow the prompt.
fn guidance(rules: &InputRules) -> Vec<(&'static str, Object)> {
    let defaults = GenerationInput::new("");
    vec![
        (
            "guidance_scale",
            or_null(
                number("How closely to follow the prompt; 1 and less means no guidance")
                    .exclusive_minimum(Some(0))
                    .maximum(Some(20))
                    .default(Some(json!(defaults.guidance_scale))),
            ),
        ),
        (
            "guidance_rescale",
            fraction(
                "How far guidance may not change the contrast: 0 leaves it as it is, 1 takes all of it back",
                &json!(rules.guidance_rescale),
            ),
        ),
        (
            "guidance_end",
            fraction(
                "The share of the steps that are guided; the rest follows the prompt without guidance",
                &json!(rules.guidance_end),
            ),
        ),
    ]
}

/// The fields that follow.
fn drawing(rules: &InputRules) -> Vec<(&'static str, Object)> {
    let defaults = GenerationInput::new("");
    vec![
        (
            "scheduler",
            or_null(choice(SCHEDULERS, scheduler_names()).default(Some(json!(rules.scheduler.as_str())))),
        ),
        (
            "karras",
            or_null(
                flag("The same as spacing karras")
                    .default(Some(json!(rules.spacing == Some(Spacing::Karras)))),
            ),
        ),
        (
            "spacing",
            or_null(
                choice(SPACINGS, Spacing::ALL.map(Spacing::as_str))
                    .default(Some(json!(rules.spacing.map(Spacing::as_str)))),
            ),
        ),
        ("eta", or_null(within("The share of noise that stochastic schedulers add at each step", 1))),
        ("s_churn", or_null(within("Noise that EULER-D, HEUN and KDPM2-D add before their steps", 100))),
        ("s_tmin", or_null(within("The lowest sigma at which s_churn adds noise", 10_000))),
        ("s_tmax", or_null(within("The highest sigma at which s_churn adds noise; 0 means no limit", 10_000))),
        ("s_noise", or_null(within("The deviation of the noise that is added at steps", 2))),
        (
            "seed",
            or_null(
                integer("The seed of the first picture; each next picture adds 1. Absent or -1 means random; the output says which seed it was")
                    .minimum(Some(-1))
                    .maximum(usize::try_from(u64::MAX).ok()),
            ),
        ),
        (
            "noise",
            or_null(defaulted(
                "Which random numbers a seed means: torch's on the CPU or torch's on CUDA",
                NoiseSource::ALL.map(NoiseSource::as_str),
                defaults.noise.as_str(),
            )),
        ),
        (
            "vae",
            or_null(defaulted(
                    "What decodes the pictures: the model's own VAE, or a tiny one, which is faster and nearly the same",
                    Vae::ALL.into_iter().filter(|vae| *vae != Vae::Tiny || rules.tiny_vae.is_some()).map(Vae::as_str),
                    defaults.vae.as_str(),
            )),
        ),
        (
            "precision",
            or_null(defaulted(
                "The precision of the UNet's linear layers: int8 is faster on a CPU and changes the picture",
                rules.precisions.iter().map(|precision| precision.as_str()),
                defaults.precision.as_str(),
            )),
        ),
        (
            "clip_skip",
            bounded(
                "Which layer of the text encoder to use, counted from the last",
                1,
                rules.max_clip_skip.max(1).into(),
                &json!(defaults.clip_skip),
            ),
        ),
        ("init_image", or_null(image("The picture to start from"))),
        ("mask", or_null(image("Where to repaint init_image: the white areas"))),
        ("mask_invert", or_null(flag("Repaint the black areas instead").default(Some(json!(false))))),
        (
            "mask_blur",
            or_null(
                integer(
                    "Lays init_image over the areas that are kept, with an edge blurred by this many pixels",
                )
                .minimum(Some(0))
                .maximum(Some(MAX_MASK_BLUR)),
            ),
        ),
        ("prompt_strength", fraction("How much of init_image may change; 1 means all of it", &json!(0.8))),
        (
            "image_guidance_scale",
            or_null(
                number("InstructPix2Pix models only: how closely to follow init_image. 1.5 if absent")
                    .exclusive_minimum(Some(0))
                    .maximum(Some(20)),
            ),
        ),
        ("controlnet", controlnet()),
        (
            "nsfw",
            or_null(flag(
                "False withholds pictures that the safety checker flags. If the model has none, warnings say so",
            )),
        ),
        ("lora", or_null(text(LORA))),
        ("lora_scale", fraction("The strength of the LoRA in the field lora", &json!(1.0))),
    ]
}

/// A word of these. Without one, it is the default.
fn defaulted(
    description: &str,
    words: impl IntoIterator<Item = &'static str>,
    default: &str,
) -> ObjectBuilder {
    choice(description, words).default(Some(json!(default)))
}

/// One ControlNet, or a list of them.
fn controlnet() -> Object {
    let word = |default: &str| Some(json!(default));
    let preprocessors = Preprocessor::ALL.into_iter().flat_map(|kind| [kind.as_str(), kind.a1111_name()]);
    let preprocessors: BTreeSet<&str> = preprocessors.collect();
    let weight =
        number("The factor of what the ControlNet says").minimum(Some(0)).maximum(Some(MAX_CONTROL_WEIGHT));
    let mut controlnet = object(
        "A ControlNet that the picture follows, or a list of up to four. Some checkpoints take none: then this is refused",
    )
    .property("model", text("A ControlNet on the server, by name or file name"))
    .property("image", image("The picture that it follows"))
    .property("weight", or_null(weight.default(Some(json!(1.0)))))
    .property("start", fraction("The share of the steps before which it says nothing", &json!(0)))
    .property("end", fraction("The share of the steps after which it says nothing", &json!(1)))
    .property(
        "preprocess",
        or_null(choice("What is done to the picture before", preprocessors).default(word("none"))),
    )
    .property("threshold_a", or_null(number("The preprocessor's first number")))
    .property("threshold_b", or_null(number("The preprocessor's second number")))
    .property(
        "control_mode",
        or_null(
            choice("Who is heard more: the prompt or the ControlNet", ControlMode::ALL.map(ControlMode::as_str))
                .default(word("balanced")),
        ),
    )
    .property(
        "resize_mode",
        or_null(
            choice("How the picture gets the drawing's size", ControlResize::ALL.map(ControlResize::as_str))
                .default(word("crop")),
        ),
    )
    .required("model")
    .required("image")
    .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(false)))
    .build();
    controlnet.schema_type = SchemaType::Array(vec![Type::Object, Type::Array, Type::Null]);
    controlnet
}

fn image(about: &str) -> ObjectBuilder {
    text(&format!("{about}; an http(s) URL, a data URI or plain base64"))
}

pub(super) fn bounded(about: &str, min: u64, max: u64, default: &serde_json::Value) -> Object {
    or_null(integer(about).minimum(Some(min)).maximum(Some(max)).default(Some(default.clone())))
}

fn within(about: &str, most: u64) -> ObjectBuilder {
    number(about).minimum(Some(0)).maximum(Some(most))
}

pub(super) fn fraction(about: &str, default: &serde_json::Value) -> Object {
    or_null(number(about).minimum(Some(0)).maximum(Some(1)).default(Some(default.clone())))
}
