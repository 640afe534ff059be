//! What a model says about itself is heard: prediction, zero terminal SNR, sizes; in whatever form people's files say it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use half::f16;
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use stablehand::diffusion::Model;
use stablehand::domain::{GenerationInput, SchedulerKind, Spacing};

use crate::check::{check, one_line};
use crate::checkpoints::{
    Checkpoint, Tensor, Tensors, assert_draws_as_the_built_in, diffusers_folder, original, pipeline, refusal,
};
use crate::drawing::{by_the_built_in_model, draw, heart};

const SCHEDULER: &str = "scheduler/scheduler_config.json";

fn set(folder: &Path, file: &str, changes: &Value) {
    let path = folder.join(file);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(path, config.to_string()).unwrap();
}

fn mark() -> Tensor {
    Tensor { dtype: Dtype::F32, shape: vec![0], bytes: Vec::new() }
}

fn with_marks(names: &[&str]) -> Tensors {
    let mut tensors = original();
    tensors.extend(names.iter().map(|name| ((*name).to_owned(), mark())));
    tensors
}

fn drawn(path: &Path, scheduler: SchedulerKind) -> Vec<u8> {
    draw(&mut pipeline(path).unwrap(), scheduler)
}

/// What a folder draws whose scheduler's file says the same.
fn by_a_folder(changes: &Value, scheduler: SchedulerKind) -> Vec<u8> {
    let folder = diffusers_folder();
    set(folder.path(), SCHEDULER, changes);
    drawn(folder.path(), scheduler)
}

#[test]
fn every_word_for_v_prediction_draws_as_a_folder_that_says_so() {
    let scheduler = SchedulerKind::EulerD;
    let expected = by_a_folder(&json!({"prediction_type": "v_prediction"}), scheduler);
    assert!(expected != by_the_built_in_model(scheduler));

    let marked = Checkpoint::of(&with_marks(&["v_pred"]));
    assert!(drawn(&marked.path(), scheduler) == expected, "the tensor");
    let (code, stdout, _) = check(&marked.path());
    let said = one_line(&stdout);
    assert!(code == Some(0) && said.contains("v prediction (its tensor v_pred says so)"), "{stdout}");
    assert!(!said.contains("Not read") && !said.contains("not read"), "{stdout}");

    let plain = Checkpoint::of(&original());
    fs::write(plain.path().with_extension("yaml"), "model:\n  params:\n    parameterization: \"v\"\n")
        .unwrap();
    assert!(drawn(&plain.path(), scheduler) == expected, "the yaml");
    assert!(one_line(&check(&plain.path()).1).contains("v prediction (fox.yaml says so)"));

    for key in ["modelspec.prediction_type", "modelspec.predict_key"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fox.safetensors");
        let tensors = original();
        let views = tensors.iter().map(|(name, tensor)| {
            (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
        });
        let metadata = HashMap::from([(key.to_owned(), "v".to_owned())]);
        serialize_to_file(views, Some(metadata), &path).unwrap();
        assert!(drawn(&path, scheduler) == expected, "{key}");
    }

    // The user's own file is heard first.
    fs::write(marked.path().with_extension("yaml"), "model: {params: {parameterization: eps}}").unwrap();
    assert_draws_as_the_built_in(&marked.path());
}

#[test]
fn zero_terminal_snr_draws_as_a_folder_that_says_so() {
    let marked = Checkpoint::of(&with_marks(&["v_pred", "ztsnr"]));
    let file = json!({
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing"
    });
    for scheduler in [SchedulerKind::EulerD, SchedulerKind::Ddim, SchedulerKind::UniPc] {
        assert!(drawn(&marked.path(), scheduler) == by_a_folder(&file, scheduler), "{scheduler}");
    }
    for (scheduler, is_said) in [(SchedulerKind::KLms, true), (SchedulerKind::Ddim, false)] {
        let drawn = pipeline(&marked.path()).unwrap().draw(&heart(scheduler), 7).unwrap().remove(0);
        assert_eq!(
            String::from_utf8_lossy(&drawn.png).contains("Not read: zero terminal SNR"),
            is_said,
            "{scheduler}"
        );
    }
    let (code, stdout, _) = check(&marked.path());
    let said = one_line(&stdout);
    assert_eq!(code, Some(0), "{stdout}");
    for part in ["with zero terminal SNR", "spacing: trailing", "EULER-D, where a request names none"] {
        // The built-in model's own file names a scheduler, too.
        assert!(said.contains(part), "no '{part}' in: {stdout}");
    }
    assert!(
        said.contains(
            "DDIM, DDPM, DPM-2S-A, DPM-3M-SDE, DPM-M, DPM-M-SDE, DPM-M-SDE-HEUN, DPM-SDE, EULER-A, EULER-D, LCM, \
             TCD, UNIPC draw with it as it was trained"
        ),
        "{said}"
    );
}

#[test]
fn a_yaml_that_makes_no_sense_is_refused_by_its_name() {
    let plain = Checkpoint::of(&original());
    let yaml = plain.path().with_extension("yaml");
    for (text, part) in
        [("model: {", "fox.yaml"), ("model: {params: {linear_start: low}}", "linear_start is \"low\"")]
    {
        fs::write(&yaml, text).unwrap();
        let sentence = plain.refusal();
        assert!(sentence.contains(part), "{sentence}");
    }
    fs::write(&yaml, vec![b' '; 300_000]).unwrap();
    assert!(plain.refusal().contains("more than 262144 bytes"));
    fs::write(&yaml, "\u{feff}model: {params: {parameterization: foo, scale_factor: 0.54509}}").unwrap();
    assert_draws_as_the_built_in(&plain.path());
    assert!(one_line(&check(&plain.path()).1).contains("fox.yaml says that it predicts \"foo\""));
}

#[test]
fn a_checkpoint_s_broken_weights_are_named() {
    let mut tensors = original();
    let name = "model.diffusion_model.out.2.bias";
    let bias = tensors.get_mut(name).unwrap();
    bias.bytes = f16::NAN.to_le_bytes().repeat(4);
    let checkpoint = Checkpoint::of(&tensors);
    let (code, stdout, _) = check(&checkpoint.path());
    let said = one_line(&stdout);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(said.starts_with("fox does not draw: 1 of its tensors hold values that are infinite or not a number: use another copy"), "{stdout}");
    assert!(said.contains(&format!("Not finite {name}: 4 values are infinite or not a number")), "{stdout}");

    // Nothing asks for this token.
    let table =
        tensors.get_mut("cond_stage_model.transformer.text_model.embeddings.token_embedding.weight").unwrap();
    table.bytes[..2].copy_from_slice(&f16::INFINITY.to_le_bytes());
    tensors.get_mut(name).unwrap().bytes = original().remove(name).unwrap().bytes;
    let checkpoint = Checkpoint::of(&tensors);
    let (code, stdout, _) = check(&checkpoint.path());
    assert_eq!(code, Some(0), "{stdout}");
    assert!(one_line(&stdout).contains("token_embedding.weight: 1 values are infinite"), "{stdout}");
}

#[test]
fn configurations_with_nulls_and_lists_draw() {
    let folder = diffusers_folder();
    let path = folder.path();
    set(
        path,
        "unet/config.json",
        &json!({"sample_size": [16, 16], "attention_head_dim": [4, 4, 4], "cross_attention_dim": [160, 160, 160],
            "class_embed_type": null, "only_cross_attention": [false, false, false], "norm_num_groups": 16.0}),
    );
    set(
        path,
        "vae/config.json",
        &json!({"latents_mean": null, "sample_size": [128, 128], "shift_factor": null}),
    );
    set(
        path,
        "text_encoder/config.json",
        &json!({"num_hidden_layers": 3.0, "architectures": null, "hidden_act": null}),
    );
    set(
        path,
        SCHEDULER,
        &json!({"trained_betas": null, "timestep_spacing": null, "num_train_timesteps": 1000.0, "thresholding": null,
            "prediction_type": null, "_class_name": null}),
    );
    set(
        path,
        "tokenizer/tokenizer_config.json",
        &json!({"model_max_length": null, "added_tokens_decoder": null, "pad_token": null, "additional_special_tokens": {},
            "unk_token": {"content": "<|endoftext|>", "lstrip": null, "rstrip": null, "single_word": null, "special": null}}),
    );
    set(
        path,
        "model_index.json",
        &json!({"safety_checker": [null, null], "text_encoder_2": null, "_class_name": null}),
    );
    let scheduler = fs::read_to_string(path.join(SCHEDULER)).unwrap();
    fs::write(
        path.join(SCHEDULER),
        scheduler.replacen('{', "{\"lambda_min_clipped\": -Infinity, \"x\": NaN,", 1),
    )
    .unwrap();
    assert_draws_as_the_built_in(path);
}

#[test]
fn configurations_that_make_no_sense_are_refused_in_one_sentence() {
    for (file, changes, part) in [
        ("unet/config.json", json!({"sample_size": "large"}), "sample_size is \"large\""),
        ("unet/config.json", json!({"sample_size": 4_000_000_000_u32}), "between 1 and 4096"),
        ("unet/config.json", json!({"class_embed_type": "timestep"}), "class_embed_type is \"timestep\""),
        ("unet/config.json", json!({"time_cond_proj_dim": 256}), "time_cond_proj_dim is 256"),
        ("vae/config.json", json!({"scaling_factor": "0.18"}), "scaling_factor is \"0.18\""),
        ("vae/config.json", json!({"scaling_factor": 0}), "a positive number"),
        ("text_encoder/config.json", json!({"num_hidden_layers": 24}), "num_hidden_layers is 24"),
        ("text_encoder/config.json", json!({"hidden_act": "gelu"}), "hidden_act is \"gelu\""),
        (
            SCHEDULER,
            json!({"_class_name": "FlowMatchEulerDiscreteScheduler"}),
            "FlowMatchEulerDiscreteScheduler",
        ),
        (SCHEDULER, json!({"steps_offset": "one"}), "steps_offset"),
        ("tokenizer/special_tokens_map.json", json!({"pad_token": "[PAD]"}), "[PAD]"),
    ] {
        let folder = diffusers_folder();
        set(folder.path(), file, &changes);
        let sentence = refusal(folder.path());
        assert!(sentence.contains(part), "no '{part}' in: {sentence}");
        let (code, stdout, _) = check(folder.path());
        assert!(code == Some(1) && one_line(&stdout).contains(" does not draw: "), "{stdout}");
    }
    for text in ["[]", "null", "", "{", "{\"sample_size\": 16,}"] {
        let folder = diffusers_folder();
        fs::write(folder.path().join("unet/config.json"), text).unwrap();
        assert!(refusal(folder.path()).contains("unet/config.json"));
    }
}

#[test]
fn a_scheduler_s_file_decides_where_it_speaks() {
    let folder = diffusers_folder();
    fs::remove_file(folder.path().join("stablehand.json")).unwrap();
    let default = |path: &Path| Model::open(Some(path), None).unwrap().rules().scheduler;
    assert_eq!(default(folder.path()), SchedulerKind::KLms);
    set(folder.path(), SCHEDULER, &json!({"rescale_betas_zero_snr": true}));
    assert_eq!(default(folder.path()), SchedulerKind::EulerD);
}

#[test]
fn a_spacing_in_stablehand_json_is_that_of_the_model_s_own_scheduler() {
    let folder = diffusers_folder();
    set(folder.path(), "stablehand.json", &json!({"scheduler": "DPM-M", "spacing": "karras"}));
    let mut pipeline = pipeline(folder.path()).unwrap();
    let asked = |request: Value| GenerationInput::parse(&request, pipeline.model().rules()).unwrap();
    let spacing = |request: Value| asked(request).sampling.spacing;
    let plain = json!({"prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 4});
    let with = |field: &str, value: Value| {
        let mut request = plain.clone();
        request[field] = value;
        request
    };
    assert_eq!(spacing(plain.clone()), Some(Spacing::Karras));
    assert_eq!(spacing(with("spacing", json!("exponential"))), Some(Spacing::Exponential));
    assert_eq!(spacing(with("karras", json!(false))), None);
    assert_eq!(
        spacing(with("scheduler", json!("DPM-M"))),
        None,
        "a scheduler that was asked for has its own"
    );
    let drawn =
        [plain.clone(), with("scheduler", json!("DPM++ 2M Karras")), with("scheduler", json!("DPM-M"))]
            .map(asked)
            .map(|input| pipeline.draw(&input, 5).unwrap().remove(0).image);
    assert_eq!(drawn[0], drawn[1]);
    assert_ne!(drawn[0], drawn[2]);
}
