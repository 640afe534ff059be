use std::sync::Arc;

use serde_json::{Map, json};

use super::*;
use crate::domain::LoraShelf;

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
fn every_violation_is_named_at_once() {
    assert_eq!(
        violations(&json!({
            "size": 3, "num_outputs": 11, "width": "wide", "height": 500, "guidance_scale": 0,
            "scheduler": "DDIMM", "seed": -1, "num_inference_steps": 2.5, "init_image": "aGk=",
            "noise": "gpu", "mask_invert": 1, "prompt_strength": 1.5,
        })),
        [
            "Unexpected input. size is not a valid input option.",
            "prompt is a required input.",
            "width should be int type, not str.",
            "height does not meet the constraints. It is 500; this model draws multiples of 64.",
            "num_outputs does not meet the constraints. It is 11; it must be a whole number from 1 to 10.",
            "num_inference_steps should be int type, not float.",
            "guidance_scale does not meet the constraints. It is 0; it must be above 0 and at most 20.",
            "scheduler does not meet the constraints. It must be one of DDIM, DDPM, DPM-M, DPM-S, EULER-A, \
             EULER-D, HEUN, IPNDM, KDPM2-A, KDPM2-D, K-LMS, LCM, PNDM, UNIPC.",
            "seed does not meet the constraints. It is -1; it must be a whole number from 0 to 18446744073709551615.",
            "noise does not meet the constraints. It must be one of cpu, cuda.",
            "init_image does not meet the constraints. Its bytes are no picture that is read here: send a \
             PNG, JPEG or WebP.",
            "mask_invert should be bool type, not int.",
            "prompt_strength does not meet the constraints. It is 1.5; it must be from 0 to 1.",
        ]
    );
}

/// Has fur and ink.
#[derive(Debug)]
struct FurAndInk;

impl LoraShelf for FurAndInk {
    fn find(&self, name: &str) -> Result<String, String> {
        let found = ["fur", "ink"]
            .into_iter()
            .find(|there| name.strip_suffix(".safetensors").unwrap_or(name) == *there);
        found.map(str::to_owned).ok_or_else(|| format!("There is no LoRA {name}."))
    }
}

fn with_loras() -> InputRules {
    InputRules { loras: Some(Arc::new(FurAndInk)), ..InputRules::default() }
}

#[test]
fn loras_come_from_the_field_and_from_the_prompt() {
    let prompt = "a fox <lora:ink:0.5:2>";
    let request = json!({"prompt": prompt, "lora": "fur.safetensors", "lora_scale": 0.3, "negative_prompt": "<lora:none>"});
    let input = GenerationInput::parse(&request, &with_loras()).unwrap();
    let lora =
        |name: &str, unet, text_encoder, origin| Lora { name: name.to_owned(), unet, text_encoder, origin };
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
fn a_lora_that_is_not_there_is_refused_by_name() {
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
        [
            "prompt does not meet the constraints. It asks for more than 8 LoRAs, which is the most there may be."
        ]
    );
    assert_eq!(refused(json!({"prompt": "", "lora": ["ink"]})), ["lora should be str type, not list."]);
}

#[test]
fn a_model_that_takes_no_loras_says_so() {
    let why = "is not supported by this model, whose weights lie inside its ONNX graphs: a model of .safetensors files \
               takes LoRAs.";
    assert_eq!(
        violations(&json!({"prompt": "<lora:ink>", "lora": "fur"})),
        [format!("lora {why}"), format!("prompt does not meet the constraints. A <lora:…> in it {why}"),]
    );
}

#[test]
fn bounds_hold_at_their_edges() {
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
fn a_picture_to_start_from_is_taken_where_the_model_can() {
    let url = "https://example.org/fox.png";
    let request = json!({"prompt": "", "init_image": url, "mask": url, "prompt_strength": 1});
    let input = GenerationInput::parse(&request, &InputRules::default()).unwrap();
    assert_eq!(input.init_image, Some(ImageSource::Url(url.parse().unwrap())));
    assert_eq!((input.mask, input.mask_invert), (input.init_image, false));
    assert!((input.prompt_strength - 1.0).abs() < f64::EPSILON);

    let rules = InputRules { takes_images: false, ..InputRules::default() };
    assert_eq!(
        GenerationInput::parse(&json!({"prompt": "", "init_image": url}), &rules).unwrap_err().0,
        ["init_image is not supported by this model: it has no encoder for pictures."]
    );
    assert_eq!(
        violations(&json!({"prompt": "", "mask": url})),
        ["mask does not meet the constraints. It needs an init_image, which it is the mask of."]
    );
    assert_eq!(
        violations(&json!({"prompt": "", "init_image": url, "scheduler": "IPNDM"})),
        ["scheduler does not meet the constraints. IPNDM cannot start from an init_image; choose another."]
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
fn a_model_may_have_a_scheduler_of_its_own_choice() {
    let rules = InputRules { scheduler: SchedulerKind::EulerD, ..InputRules::default() };
    let scheduler = |input: Value| GenerationInput::parse(&input, &rules).unwrap().scheduler;
    assert_eq!(scheduler(json!({"prompt": ""})), SchedulerKind::EulerD);
    assert_eq!(scheduler(json!({"prompt": "", "scheduler": "K-LMS"})), SchedulerKind::KLms);
}

#[test]
fn what_is_no_object_is_one_sentence() {
    assert_eq!(violations(&json!([1])), ["input should be an object."]);
}

#[test]
fn karras_is_a_field_or_a_part_of_the_name() {
    let parsed = |input: Value| {
        let input = GenerationInput::parse(&input, &InputRules::default()).unwrap();
        (input.scheduler, input.karras)
    };
    let of = |scheduler: &str, karras: Value| json!({"prompt": "", "scheduler": scheduler, "karras": karras});
    assert_eq!(parsed(of("DPM++ 2M Karras", json!(null))), (SchedulerKind::DpmM, true));
    assert_eq!(parsed(of("DPM++ 2M Karras", json!(false))), (SchedulerKind::DpmM, false));
    assert_eq!(parsed(of("EULER-D", json!(true))), (SchedulerKind::EulerD, true));
    assert_eq!(parsed(json!({"prompt": "", "karras": true})), (SchedulerKind::KLms, true));
    assert_eq!(
        violations(&of("DDIM", json!(true))),
        ["karras does not meet the constraints. DDIM has no Karras sigmas; DPM-M, DPM-S, EULER-D, HEUN, \
          KDPM2-A, KDPM2-D, K-LMS, UNIPC have."]
    );
    assert!(violations(&of("Euler a Karras", json!(null)))[0].starts_with("scheduler does not meet"));
    assert_eq!(violations(&of("DDIM", json!("yes"))), ["karras should be bool type, not str."]);
}

#[test]
fn a_model_s_own_karras_is_its_scheduler_s_alone() {
    let rules = InputRules { scheduler: SchedulerKind::DpmM, karras: true, ..InputRules::default() };
    let parsed = |input: Value| GenerationInput::parse(&input, &rules).unwrap();
    assert!(parsed(json!({"prompt": ""})).karras);
    assert!(!parsed(json!({"prompt": "", "karras": false})).karras);
    assert!(!parsed(json!({"prompt": "", "scheduler": "DDIM"})).karras);
}

#[test]
fn clip_skip_reaches_as_far_back_as_the_model_does() {
    let rules = InputRules { max_clip_skip: 12, ..InputRules::default() };
    let input = json!({"prompt": "", "clip_skip": 12});
    assert_eq!(GenerationInput::parse(&input, &rules).unwrap().clip_skip, 12);
    assert!(violations(&input)[0].contains("It is not supported by this model"));
    assert_eq!(violations(&json!({"prompt": "", "clip_skip": 13})).len(), 1);
    let one = json!({"prompt": "", "clip_skip": 1});
    assert_eq!(GenerationInput::parse(&one, &InputRules::default()).unwrap(), GenerationInput::new(""));
}

#[test]
fn the_request_for_one_image_asks_for_that_image() {
    let input = GenerationInput {
        prompt: "a (red:1.2) fox, \u{1f98a}".to_owned(),
        negative_prompt: "rain".to_owned(),
        clip_skip: 2,
        size: ImageSize { width: 256, height: 128 },
        num_outputs: 3,
        num_inference_steps: 7,
        guidance_scale: 7.3,
        scheduler: SchedulerKind::DpmM,
        karras: true,
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
