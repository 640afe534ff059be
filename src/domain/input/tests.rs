//! Inputs of requests: defaults, limits and error sentences.

use std::sync::Arc;

use serde_json::{Map, json};

use super::*;
use crate::domain::{Spacing, TinyVaeShelf};

/// The names of these schedulers, as error sentences list them.
fn names(kinds: impl IntoIterator<Item = SchedulerKind>) -> String {
    kinds.into_iter().map(SchedulerKind::as_str).collect::<Vec<_>>().join(", ")
}

fn violations(input: &Value) -> Vec<String> {
    GenerationInput::parse(input, &InputRules::default()).unwrap_err().0
}

#[test]
fn a_prompt_alone_gets_the_hosted_defaults() {
    let input = GenerationInput::parse(&json!({"prompt": "a dog"}), &InputRules::default()).unwrap();
    assert_eq!(input, GenerationInput::new("a dog"));
    assert_eq!((input.size.width, input.num_inference_steps), (512, 50));
    assert_eq!(input.scheduler, SchedulerKind::KLms);
}

#[test]
fn null_means_the_default() {
    let nulls: Map<String, Value> =
        GenerationInput::FIELDS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    let mut fields = nulls.clone();
    fields.insert("prompt".to_owned(), json!("a dog"));
    assert_eq!(
        GenerationInput::parse(&fields.into(), &InputRules::default()).unwrap(),
        GenerationInput::new("a dog")
    );
    assert_eq!(violations(&nulls.into()), ["prompt is a required input."]);
}

#[test]
fn every_violation_is_reported() {
    assert_eq!(
        violations(&json!({
            "size": 3, "num_outputs": 11, "width": "wide", "height": 500, "guidance_scale": 0,
            "scheduler": "DDIMM", "seed": -2, "guidance_rescale": -0.1, "guidance_end": 1.1, "num_inference_steps": 2.5, "init_image": "aGk=",
            "noise": "gpu", "mask_invert": 1, "prompt_strength": 1.5,
        })),
        [
            "Unexpected input. size is not a valid input option.",
            "prompt is a required input.",
            "width should be int type, not str.",
            "height does not meet the constraints. It is 500; it must be a multiple of 64.",
            "num_outputs does not meet the constraints. It is 11; it must be a whole number from 1 to 10.",
            "num_inference_steps should be int type, not float.",
            "guidance_scale does not meet the constraints. It is 0; it must be above 0 and at most 20.",
            "guidance_rescale does not meet the constraints. It is -0.1; it must be from 0 to 1.",
            "guidance_end does not meet the constraints. It is 1.1; it must be from 0 to 1.",
            &format!(
                "scheduler does not meet the constraints. It is \"DDIMM\"; it must be one of {}.",
                names(SchedulerKind::ALL)
            ),
            "seed does not meet the constraints. It is -2; it must be a whole number from 0 to 18446744073709551615, \
             or -1 for a random one.",
            "noise does not meet the constraints. It is \"gpu\"; it must be one of cpu, cuda.",
            "init_image does not meet the constraints. It is not a picture in a supported format: send a PNG, JPEG, \
             WebP, GIF, BMP or TIFF.",
            "prompt_strength does not meet the constraints. It is 1.5; it must be from 0 to 1.",
            "mask_invert should be bool type, not int.",
        ]
    );
}

#[test]
fn limits_are_inclusive() {
    let ok = |input: Value| GenerationInput::parse(&input, &InputRules::default()).unwrap();
    let input = ok(json!({"prompt": "", "seed": u64::MAX, "guidance_scale": 20, "num_inference_steps": 500,
        "num_outputs": 10, "width": 1024, "height": 768, "prompt_strength": 1, "nsfw": true}));
    assert_eq!(input.seed, Some(u64::MAX));
    assert_eq!(violations(&json!({"prompt": "", "width": 1024, "height": 1024})).len(), 1);
    assert_eq!(violations(&json!({"prompt": "", "seed": 18_446_744_073_709_551_616.0})).len(), 1);
    assert_eq!(violations(&json!({"prompt": "a".repeat(MAX_PROMPT_BYTES + 1)})).len(), 1);
    assert_eq!(violations(&json!({"prompt": "", "width": 0})).len(), 1);
    assert_eq!(
        violations(&json!({"prompt": "", "num_outputs": true})),
        ["num_outputs should be int type, not bool."]
    );
}

#[test]
fn an_input_that_is_not_an_object_is_one_error() {
    assert_eq!(violations(&json!([1])), ["input should be an object."]);
}

#[test]
fn a_seed_of_minus_one_is_a_random_one() {
    let seed = |input: Value| GenerationInput::parse(&input, &InputRules::default()).unwrap().seed;
    assert_eq!(seed(json!({"prompt": "", "seed": -1})), None);
    assert_eq!(seed(json!({"prompt": "", "seed": 0})), Some(0));
    for (wrong, sentence) in [
        (
            json!(-2),
            "It is -2; it must be a whole number from 0 to 18446744073709551615, or -1 for a random one.",
        ),
        (json!(i64::MIN), "It is -9223372036854775808; it must be a whole number"),
        (json!(-1.0), "seed should be int type, not float."),
        (json!("-1"), "seed should be int type, not str."),
    ] {
        let found = violations(&json!({"prompt": "", "seed": wrong}));
        assert!(found.len() == 1 && found[0].contains(sentence), "{found:?}");
    }
}

#[test]
fn a_model_may_have_its_own_default_guidance() {
    let rules = InputRules { guidance_rescale: 0.5, guidance_end: 0.7, ..InputRules::default() };
    let parsed = |input: Value| {
        let input = GenerationInput::parse(&input, &rules).unwrap();
        (input.guidance_rescale, input.guidance_end)
    };
    assert_eq!(parsed(json!({"prompt": ""})), (0.5, 0.7));
    assert_eq!(parsed(json!({"prompt": "", "guidance_rescale": 0, "guidance_end": 1})), (0.0, 1.0));
}

#[test]
fn clip_skip_is_limited_by_the_model() {
    let rules = InputRules { max_clip_skip: 12, ..InputRules::default() };
    let input = json!({"prompt": "", "clip_skip": 12});
    assert_eq!(GenerationInput::parse(&input, &rules).unwrap().clip_skip, 12);
    assert!(violations(&input)[0].contains("It is 12; this model supports only 1,"));
    assert_eq!(violations(&json!({"prompt": "", "clip_skip": 13})).len(), 1);
    let one = json!({"prompt": "", "clip_skip": 1});
    assert_eq!(GenerationInput::parse(&one, &InputRules::default()).unwrap(), GenerationInput::new(""));
}

#[test]
fn the_request_for_one_image_reproduces_it() {
    let input = GenerationInput {
        prompt: "a (red:1.2) fox, \u{1f98a}".to_owned(),
        negative_prompt: "rain".to_owned(),
        clip_skip: 2,
        size: ImageSize { width: 256, height: 128 },
        num_outputs: 3,
        num_inference_steps: 7,
        guidance_scale: 7.3,
        guidance_rescale: 0.7,
        guidance_end: 0.85,
        scheduler: SchedulerKind::DpmMSde,
        sampling: Sampling {
            spacing: Some(Spacing::Beta),
            eta: Some(0.7),
            s_noise: Some(1.1),
            ..Sampling::default()
        },
        seed: None,
        noise: NoiseSource::Cuda,
        ..GenerationInput::new("")
    };
    let request = input.request_for(u64::MAX, 2);
    assert_eq!(request["guidance_scale"], json!(7.3));
    let rules = InputRules { max_clip_skip: 12, ..InputRules::default() };
    let expected = GenerationInput { num_outputs: 1, seed: Some(1), ..input };
    assert_eq!(GenerationInput::parse(&request, &rules).unwrap(), expected);
    for name in request.as_object().unwrap().keys() {
        assert!(GenerationInput::FIELDS.contains(&name.as_str()));
    }
}

#[test]
fn fields_without_effect_on_a_model_that_embeds_guidance_are_said() {
    let rules = InputRules { embeds_guidance: true, ..InputRules::default() };
    let parse = |input: Value| GenerationInput::parse(&input, &rules).unwrap();
    let input =
        parse(json!({"prompt": "", "negative_prompt": "x", "guidance_rescale": 0.5, "guidance_end": 0.5}));
    assert_eq!((input.guidance_rescale, input.guidance_end), (0.0, 1.0));
    let named = input.warnings.iter().map(|warning| warning.split(' ').next().unwrap()).collect::<Vec<_>>();
    assert_eq!(named, ["negative_prompt", "guidance_rescale", "guidance_end"]);
    assert!(parse(json!({"prompt": "", "negative_prompt": ""})).warnings.is_empty());
}

#[test]
fn parts_of_a_prompt_are_rows_of_their_own_and_are_always_guided() {
    let rows = |prompt: &str, guidance_scale: f32| {
        let input = GenerationInput { guidance_scale, ..GenerationInput::new(prompt) };
        (input.is_guided(), input.rows_per_image())
    };
    assert_eq!(rows("a fox", 7.0), (true, 2));
    assert_eq!(rows("a fox AND snow AND ice :0.5", 7.0), (true, 4));
    assert_eq!(rows("a fox AND snow", 1.0), (true, 3));
    assert_eq!(rows("a fox <lora:AND AND:1>", 1.0), (false, 1));
}

#[test]
fn and_is_refused_where_it_cannot_be_drawn() {
    let refused = |prompt: &str, rules: &InputRules| {
        let input = json!({"prompt": prompt, "init_image": "https://example.org/fox.png"});
        GenerationInput::parse(&input, rules).unwrap_err().0.concat()
    };
    assert_eq!(
        refused(&"a AND ".repeat(8), &InputRules::default()),
        "prompt does not meet the constraints. AND joins 9 parts in it; at most 8 are allowed."
    );
    let edits = InputRules { edits_images: true, ..InputRules::default() };
    assert_eq!(
        refused("a AND b", &edits),
        "prompt does not meet the constraints. AND in it is not supported by this model, because InstructPix2Pix guides by \
         the picture as well."
    );
    let embeds = InputRules { embeds_guidance: true, ..InputRules::default() };
    assert!(refused("a AND b", &embeds).ends_with("because its UNet takes the guidance scale itself."));
}

#[derive(Debug)]
struct OneTinyVae;

impl TinyVaeShelf for OneTinyVae {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

#[test]
fn a_tiny_vae_is_asked_for_by_name_and_drawn_with_again() {
    let parse = |vae: Value, rules: &InputRules| {
        GenerationInput::parse(&json!({"prompt": "a fox", "vae": vae}), rules)
            .map_err(|error| error.to_string())
    };
    let none = InputRules::default();
    assert_eq!(
        parse(json!("tiny"), &none).unwrap_err(),
        "vae does not meet the constraints. It is tiny, but this model has no tiny VAE."
    );
    assert_eq!(
        parse(json!("small"), &none).unwrap_err(),
        "vae does not meet the constraints. It is \"small\"; it must be one of full, tiny."
    );
    let full = parse(json!("full"), &none).unwrap();
    assert_eq!((full.vae, full.request_for(1, 0).get("vae")), (Vae::Full, None));
    let rules = InputRules { tiny_vae: Some(Arc::new(OneTinyVae)), ..none };
    let tiny = parse(json!("tiny"), &rules).unwrap();
    assert_eq!(tiny.vae, Vae::Tiny);
    assert_eq!(GenerationInput::parse(&tiny.request_for(1, 0), &rules).unwrap().vae, Vae::Tiny);
    assert!(rules.takes("vae") && !InputRules::default().takes("vae"));
}
