//! Inputs of requests: defaults, limits and error sentences.

use std::sync::Arc;

use serde_json::{Map, json};

use super::*;
use crate::domain::{LoraShelf, Spacing};

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

/// A folder with the LoRAs fur and ink.
#[derive(Debug)]
struct FurAndInk;

impl LoraShelf for FurAndInk {
    fn find(&self, name: &str) -> Result<String, String> {
        let found = ["fur", "ink"]
            .into_iter()
            .find(|there| name.strip_suffix(".safetensors").unwrap_or(name) == *there);
        found.map(str::to_owned).ok_or_else(|| format!("There is no LoRA {name}."))
    }

    fn names(&self) -> Vec<String> {
        vec!["fur".to_owned(), "ink".to_owned()]
    }
}

fn with_loras() -> InputRules {
    InputRules { loras: Some(Arc::new(FurAndInk)), ..InputRules::default() }
}

#[test]
fn the_field_and_the_prompt_name_loras() {
    let prompt = "a fox <lora:ink:0.5:2>";
    let request = json!({"prompt": prompt, "lora": "fur.safetensors", "lora_scale": 0.3, "negative_prompt": "<lora:none>"});
    let input = GenerationInput::parse(&request, &with_loras()).unwrap();
    let lora = |name: &str, unet, text_encoder, origin| Lora {
        name: name.to_owned(),
        unet,
        text_encoder,
        blocks: None,
        origin,
    };
    let expected = [lora("fur", 0.3, 0.3, LoraOrigin::Field), lora("ink", 2.0, 0.5, LoraOrigin::Prompt)];
    assert_eq!((input.loras.as_slice(), input.prompt.as_str()), (&expected[..], prompt));
    let again = input.request_for(7, 0);
    assert_eq!(
        (&again["lora"], &again["lora_scale"], &again["prompt"]),
        (&json!("fur"), &json!(0.3), &json!(prompt))
    );
    let parsed = GenerationInput::parse(&again, &with_loras()).unwrap();
    assert_eq!(parsed.loras, input.loras);
}

#[test]
fn a_missing_lora_is_refused_by_name() {
    let refused = |input: Value| GenerationInput::parse(&input, &with_loras()).unwrap_err().0;
    assert_eq!(
        refused(json!({"prompt": "<lora:cat>", "lora": "dog", "lora_scale": 2})),
        [
            "lora_scale does not meet the constraints. It is 2; it must be from 0 to 1.",
            "lora does not meet the constraints. There is no LoRA dog.",
            "prompt does not meet the constraints. There is no LoRA cat.",
        ]
    );
    assert_eq!(
        refused(json!({"prompt": "<lora:ink>".repeat(9)})),
        ["prompt does not meet the constraints. The request names more than 8 LoRAs; at most 8 are allowed."]
    );
    assert_eq!(refused(json!({"prompt": "", "lora": ["ink"]})), ["lora should be str type, not list."]);
}

#[test]
fn a_model_without_lora_support_refuses_loras() {
    let why = "is not supported by this model, because its weights are inside its ONNX graphs; use a model with \
               .safetensors files.";
    assert_eq!(
        violations(&json!({"prompt": "<lora:ink>", "lora": "fur"})),
        [format!("lora {why}"), format!("prompt does not meet the constraints. A <lora:…> in it {why}"),]
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
fn an_init_image_needs_a_model_with_a_vae_encoder() {
    let url = "https://example.org/fox.png";
    let request = json!({"prompt": "", "init_image": url, "mask": url, "prompt_strength": 1});
    let input = GenerationInput::parse(&request, &InputRules::default()).unwrap();
    assert_eq!(input.init_image, Some(ImageSource::Url(url.parse().unwrap())));
    assert_eq!((input.mask, input.mask_invert), (input.init_image, false));
    assert!((input.prompt_strength - 1.0).abs() < f64::EPSILON);

    let rules = InputRules { takes_images: false, ..InputRules::default() };
    assert_eq!(
        GenerationInput::parse(&json!({"prompt": "", "init_image": url}), &rules).unwrap_err().0,
        ["init_image is not supported by this model, because it has no VAE encoder."]
    );
    assert_eq!(
        violations(&json!({"prompt": "", "mask": url})),
        ["mask does not meet the constraints. It needs an init_image."]
    );
    assert_eq!(
        violations(&json!({"prompt": "", "init_image": url, "scheduler": "IPNDM"})),
        [
            "scheduler does not meet the constraints. IPNDM cannot start from an init_image; choose another scheduler."
        ]
    );
}

#[test]
fn every_documented_scheduler_name_is_known() {
    for (name, kind) in [
        ("K-LMS", SchedulerKind::KLms),
        ("KLMS", SchedulerKind::KLms),
        ("K_EULER", SchedulerKind::EulerD),
        ("DPMSolverMultistep", SchedulerKind::DpmM),
    ] {
        let input = GenerationInput::parse(&json!({"prompt": "", "scheduler": name}), &InputRules::default())
            .unwrap();
        assert_eq!(input.scheduler, kind);
    }
}

#[test]
fn a_model_may_have_its_own_default_scheduler() {
    let rules = InputRules { scheduler: SchedulerKind::EulerD, ..InputRules::default() };
    let scheduler = |input: Value| GenerationInput::parse(&input, &rules).unwrap().scheduler;
    assert_eq!(scheduler(json!({"prompt": ""})), SchedulerKind::EulerD);
    assert_eq!(scheduler(json!({"prompt": "", "scheduler": "K-LMS"})), SchedulerKind::KLms);
}

#[test]
fn an_input_that_is_not_an_object_is_one_error() {
    assert_eq!(violations(&json!([1])), ["input should be an object."]);
}

#[test]
fn the_spacing_comes_from_the_fields_or_the_scheduler_name() {
    use SchedulerKind as K;
    use Spacing as S;
    let parsed = |fields: Value| {
        let mut input = json!({"prompt": ""});
        input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        GenerationInput::parse(&input, &InputRules::default())
            .map(|parsed| (parsed.scheduler, parsed.sampling.spacing))
            .map_err(|violations| violations.0.join(" "))
    };
    for (fields, expected) in [
        (json!({}), (K::KLms, None)),
        (json!({"scheduler": "DPM++ 2M Karras"}), (K::DpmM, Some(S::Karras))),
        (json!({"scheduler": "DPM++ 2M Karras", "karras": false}), (K::DpmM, None)),
        (json!({"scheduler": "DPM++ 2M Karras", "spacing": "beta"}), (K::DpmM, Some(S::Beta))),
        (
            json!({"scheduler": "DPM++ 2M SDE Exponential", "karras": false}),
            (K::DpmMSde, Some(S::Exponential)),
        ),
        (json!({"scheduler": "EULER-D", "karras": true}), (K::EulerD, Some(S::Karras))),
        (json!({"karras": true}), (K::KLms, Some(S::Karras))),
        (json!({"karras": true, "spacing": "karras"}), (K::KLms, Some(S::Karras))),
        (json!({"karras": false, "spacing": "SGM Uniform"}), (K::KLms, Some(S::SgmUniform))),
        (json!({"scheduler": "DDIM", "spacing": "trailing"}), (K::Ddim, Some(S::Trailing))),
    ] {
        assert_eq!(parsed(fields.clone()), Ok(expected), "{fields}");
    }
    for (fields, expected) in [
        (
            json!({"scheduler": "DDIM", "karras": true}),
            "karras does not meet the constraints. DDIM does not take the spacing karras; \
             choose one of linspace, leading, trailing.",
        ),
        (
            json!({"scheduler": "DDIM Karras"}),
            "scheduler does not meet the constraints. DDIM does not take the spacing karras; \
             choose one of linspace, leading, trailing.",
        ),
        (
            json!({"scheduler": "TCD", "spacing": "beta"}),
            "spacing does not meet the constraints. TCD spaces its steps in its own way, and takes no spacing.",
        ),
        (
            json!({"karras": true, "spacing": "beta"}),
            "karras does not meet the constraints. It is true, but spacing is \"beta\"; send only spacing.",
        ),
        (json!({"karras": "yes"}), "karras should be bool type, not str."),
        (json!({"spacing": 1}), "spacing should be str type, not int."),
        (
            json!({"spacing": "random"}),
            "spacing does not meet the constraints. It is \"random\"; it must be one of karras, exponential, \
             polyexponential, sgm_uniform, simple, normal, ddim_uniform, beta, align_your_steps, kl_optimal, uniform, \
             linspace, leading, trailing.",
        ),
    ] {
        assert_eq!(parsed(fields.clone()), Err(expected.to_owned()), "{fields}");
    }
}

#[test]
fn numbers_that_a_scheduler_does_not_have_are_warnings() {
    let parsed = |fields: Value| GenerationInput::parse(&fields, &InputRules::default()).unwrap();
    let all = json!({"prompt": "", "eta": 0.5, "s_churn": 3, "s_tmin": 0.1, "s_tmax": 9, "s_noise": 1.01});
    let with = |scheduler: &str| {
        let mut input = all.clone();
        input["scheduler"] = json!(scheduler);
        let parsed = parsed(input);
        let named = parsed.warnings.iter().map(|warning| warning.split(' ').next().unwrap().to_owned());
        (parsed.sampling.numbers().map(|(name, _)| name).collect::<Vec<_>>(), named.collect::<Vec<_>>())
    };
    let churn = ["s_churn", "s_tmin", "s_tmax"];
    assert_eq!(with("EULER-D").0, [&churn[..], &["s_noise"]].concat());
    assert_eq!(with("EULER-D").1, ["eta"]);
    assert_eq!(with("EULER-A"), (vec!["eta", "s_noise"], churn.map(str::to_owned).to_vec()));
    assert_eq!(with("DDIM").0, ["eta"]);
    assert!(with("DPM-M").0.is_empty());
    let input = parsed(json!({"prompt": "", "scheduler": "DPM-M", "eta": 0.5}));
    assert_eq!(input.warnings, ["eta has no effect with DPM-M."]);
    // What A1111's clients always send changes nothing anywhere.
    let neutral =
        json!({"prompt": "", "scheduler": "DPM-M", "s_churn": 0, "s_tmin": 0, "s_tmax": 0, "s_noise": 1});
    assert!(parsed(neutral).warnings.is_empty());
    assert_eq!(
        violations(&json!({"prompt": "", "eta": 1.5, "s_noise": -1, "s_churn": "x"})),
        [
            "eta does not meet the constraints. It is 1.5; it must be from 0 to 1.",
            "s_churn should be float type, not str.",
            "s_noise does not meet the constraints. It is -1; it must be from 0 to 2.",
        ]
    );
}

#[test]
fn a_model_s_default_spacing_counts_only_for_its_default_scheduler() {
    let spacing = Some(Spacing::Karras);
    let rules = InputRules { scheduler: SchedulerKind::DpmM, spacing, ..InputRules::default() };
    let parsed = |input: Value| GenerationInput::parse(&input, &rules).unwrap().sampling.spacing;
    assert_eq!(parsed(json!({"prompt": ""})), spacing);
    assert_eq!(parsed(json!({"prompt": "", "karras": false})), None);
    assert_eq!(parsed(json!({"prompt": "", "scheduler": "DDIM"})), None);
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
fn a_model_that_changes_pictures_needs_one_and_takes_no_mask() {
    let rules = InputRules { edits_images: true, ..InputRules::default() };
    let parse = |input: Value| GenerationInput::parse(&input, &rules);
    let url = "https://example.org/fox.png";
    let input = parse(json!({"prompt": "", "init_image": url, "scheduler": "IPNDM"})).unwrap();
    assert_eq!((input.image_guidance_scale, input.rows_per_image()), (Some(1.5), 3));
    assert_eq!(input.request_for(1, 0)["image_guidance_scale"], json!(1.5));
    let input = parse(json!({"prompt": "", "init_image": url, "image_guidance_scale": 0.5})).unwrap();
    assert_eq!(
        (input.image_guidance_scale, input.is_guided(), input.rows_per_image()),
        (Some(0.5), false, 1)
    );

    assert_eq!(
        parse(json!({"prompt": ""})).unwrap_err().0,
        [
            "init_image is a required input: this model (InstructPix2Pix) changes a picture as the prompt says."
        ]
    );
    assert_eq!(
        parse(json!({"prompt": "", "init_image": url, "mask": url})).unwrap_err().0,
        ["mask is not supported by this model, because InstructPix2Pix changes the whole picture."]
    );
    let refused = parse(json!({"prompt": "", "init_image": url, "image_guidance_scale": 0})).unwrap_err().0;
    assert!(refused[0].starts_with("image_guidance_scale does not meet the constraints."), "{refused:?}");

    let warned = |strength: Value| {
        parse(json!({"prompt": "", "init_image": url, "prompt_strength": strength})).unwrap().warnings
    };
    assert_eq!(
        warned(json!(0.8)),
        ["prompt_strength has no effect with this model (InstructPix2Pix): use image_guidance_scale."]
    );
    assert!(warned(Value::Null).is_empty());
}

#[test]
fn other_models_have_no_image_guidance() {
    let input = json!({"prompt": "", "image_guidance_scale": 1.5});
    let input = GenerationInput::parse(&input, &InputRules::default()).unwrap();
    assert_eq!(
        (input.image_guidance_scale, input.warnings),
        (
            None,
            vec![
                "image_guidance_scale has no effect with this model, because it is no InstructPix2Pix model."
                    .to_owned()
            ]
        )
    );
    let plain = GenerationInput::new("");
    assert_eq!((plain.rows_per_image(), plain.request_for(1, 0).get("image_guidance_scale")), (2, None));
    assert_eq!(GenerationInput { guidance_scale: 1.0, ..plain }.rows_per_image(), 1);
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

#[test]
fn wildcards_are_read_only_where_they_are_asked_for() {
    #[derive(Debug)]
    struct Shelf;

    impl crate::domain::WildcardShelf for Shelf {
        fn find(&self, name: &str) -> Result<(), String> {
            if name == "animal" { Ok(()) } else { Err(format!("There is no wildcard {name}.")) }
        }

        fn lines(&self, _name: &str) -> Result<Option<Vec<String>>, String> {
            Ok(Some(vec!["a fox AND snow".to_owned()]))
        }
    }

    let rules = InputRules { wildcards: Some(Arc::new(Shelf)), ..InputRules::default() };
    let parse = |input: Value| GenerationInput::parse(&input, &rules);
    let plain = parse(json!({"prompt": "{a|__nobody__}"})).unwrap();
    assert_eq!((plain.wildcards, plain.request_for(1, 0).get("wildcards")), (false, None));
    let input = parse(json!({"prompt": "__animal__", "wildcards": true})).unwrap();
    assert_eq!((input.wildcards, &input.request_for(1, 0)["wildcards"]), (true, &json!(true)));
    assert_eq!(
        parse(json!({"prompt": "a", "negative_prompt": "{a|__nobody__}", "wildcards": true})).unwrap_err().0,
        ["negative_prompt does not meet the constraints. There is no wildcard nobody."]
    );
    assert_eq!(
        parse(json!({"prompt": "a", "hires": {"prompt": "{a|__nobody__}"}, "wildcards": true}))
            .unwrap_err()
            .0,
        ["hires.prompt does not meet the constraints. There is no wildcard nobody."]
    );
    assert_eq!(
        input.check_drawn(1, &rules).unwrap_err().0,
        [
            "prompt does not meet the constraints. A wildcard draws an AND into it; write AND into the prompt itself."
        ]
    );
    let within = parse(json!({"prompt": "{__animal__|b AND c}", "wildcards": true})).unwrap();
    assert_eq!(within.check_drawn(1, &rules), Ok(()));
    assert_eq!(
        parse(json!({"prompt": "a", "wildcards": 1})).unwrap_err().0,
        ["wildcards should be bool type, not int."]
    );
}

#[test]
fn what_wildcards_become_is_checked_for_every_picture() {
    #[derive(Debug)]
    struct NoFoxes;

    impl PromptCheck for NoFoxes {
        fn check(
            &self,
            prompts: &[CheckedPrompt<'_>],
            _steps: u32,
        ) -> Result<(), Vec<(&'static str, String)>> {
            let foxes = prompts.iter().filter(|prompt| prompt.parts.iter().any(|part| part.contains("fox")));
            let foxes: Vec<_> = foxes.map(|prompt| (prompt.field, prompt.picture.to_string())).collect();
            if foxes.is_empty() { Ok(()) } else { Err(foxes) }
        }

        fn length(&self, _prompt: &str) -> Result<PromptLength, String> {
            Err("It is not asked.".to_owned())
        }
    }

    let rules = InputRules { prompts: Some(Arc::new(NoFoxes)), ..InputRules::default() };
    let parse = |input: Value| GenerationInput::parse(&input, &rules).unwrap();
    let input = parse(json!({
        "prompt": "a {cat|fox} AND snow", "negative_prompt": "{rain|fox}", "wildcards": true, "num_outputs": 6,
    }));
    let drawn = input.drawn_prompts(5, None).unwrap();
    let mut expected = Vec::new();
    for (picture, drawn) in drawn.iter().enumerate() {
        for (field, prompt) in [("prompt", &drawn.prompt), ("negative_prompt", &drawn.negative_prompt)] {
            if prompt.contains("fox") {
                expected.push(format!("{field} does not meet the constraints. {picture}"));
            }
        }
    }
    assert!(expected.len() > 2, "{drawn:?}");
    assert_eq!(input.check_drawn(5, &rules).unwrap_err().0, expected);
    let variations = parse(json!({
        "prompt": "{a|b|c|d|e|f|g|h}", "wildcards": true, "num_outputs": 4, "subseed": 1, "subseed_strength": 0.2,
    }));
    let drawn = variations.drawn_prompts(5, None).unwrap();
    assert!(drawn.iter().all(|prompts| *prompts == drawn[0]), "variations of one seed have its words");
    let many = parse(json!({"prompt": "a", "negative_prompt": "{a}".repeat(201), "wildcards": true}));
    assert_eq!(
        many.check_drawn(5, &rules).unwrap_err().0,
        ["negative_prompt does not meet the constraints. It draws more than 200 wildcards."]
    );
    let second = json!({"prompt": "a", "wildcards": true, "hires": {"scale": 1.5, "prompt": "fo{x|x}"}});
    assert_eq!(
        parse(second).check_drawn(5, &rules).unwrap_err().0,
        ["hires.prompt does not meet the constraints. 0"]
    );
    assert_eq!(parse(json!({"prompt": "{fo|fo}x"})).check_drawn(5, &rules), Ok(()), "nothing is drawn");
}
