//! A UNet that was distilled with guidance (a latent consistency model) draws what diffusers' pipelines draw with it.

use std::fs;

use half::f16;
use ndarray::Array4;
use safetensors::tensor::Dtype;
use serde::Deserialize;
use stablehand::diffusion::{Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use tempfile::TempDir;

use crate::check::{check, one_line};
use crate::checkpoints::{
    Checkpoint, FILES, Tensor, Tensors, component, diffusers_folder, original, pipeline, refusal, write,
};
use crate::drawing::load;
use crate::folders::{Folder, SAMPLE};
use crate::onnx::{FLOAT, int, int64s, ints, node, port};
use crate::pictures::{distance, start_picture};

const COND_PROJ: &str = "time_embedding.cond_proj.weight";

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    mode: String,
    steps: u32,
    guidance_scale: f32,
    seed: u64,
    latents: Vec<f32>,
}

/// The weight that `tests/golden/guided.py` draws with.
fn cond_proj() -> Tensor {
    let (rows, width) = (48, 256);
    let value = |index: usize| f16::from_f64((f64::from(u32::try_from(index).unwrap())).sin() / 4.0);
    let bytes = (0..rows * width).flat_map(|index| value(index).to_le_bytes()).collect();
    Tensor { dtype: Dtype::F16, shape: vec![rows, width], bytes }
}

/// The built-in model with the weight, as diffusers writes such a model.
fn folder() -> TempDir {
    let folder = diffusers_folder();
    let mut unet = component("unet", FILES[1].1);
    unet.insert(COND_PROJ.to_owned(), cond_proj());
    write(&unet, &folder.path().join("unet").join(FILES[1].1));
    set(&folder, "time_cond_proj_dim", &256.into());
    // It names a scheduler for the built-in model.
    fs::remove_file(folder.path().join("stablehand.json")).unwrap();
    folder
}

fn set(folder: &TempDir, key: &str, value: &serde_json::Value) {
    let path = folder.path().join("unet/config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value.clone();
    fs::write(path, config.to_string()).unwrap();
}

fn latents(pipeline: &mut Pipeline, input: &GenerationInput, seed: u64) -> Array4<f32> {
    let mut generation = pipeline.begin(input, seed).unwrap();
    while !generation.is_done() {
        pipeline.step(&mut [&mut generation]).unwrap();
    }
    generation.latents().clone()
}

fn input() -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: 64, height: 64 },
        num_inference_steps: 4,
        scheduler: SchedulerKind::Lcm,
        ..GenerationInput::new("a red heart on a blue background")
    }
}

#[test]
fn a_guided_unet_draws_what_diffusers_draws_with_it() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/pipelines/guided.json")).unwrap();
    let mut pipeline = pipeline(folder().path()).unwrap();
    for case in cases {
        let input = GenerationInput {
            num_inference_steps: case.steps,
            guidance_scale: case.guidance_scale,
            scheduler: SchedulerKind::parse(&case.scheduler).unwrap().0,
            init_image: (case.mode == "image").then(|| start_picture(64, 64)),
            prompt_strength: 0.6,
            ..input()
        };
        let theirs = Array4::from_shape_vec((1, 4, 8, 8), case.latents).unwrap();
        let distance = distance(&latents(&mut pipeline, &input, case.seed), &theirs);
        assert!(distance <= 1e-3, "{} {} {}: {distance:e}", case.scheduler, case.mode, case.steps);
    }
}

#[test]
fn guidance_goes_into_the_unet_and_negative_prompts_have_no_effect() {
    let folder = folder();
    let mut pipeline = pipeline(folder.path()).unwrap();
    let with = |negative: &str, guidance_scale: f32| GenerationInput {
        negative_prompt: negative.to_owned(),
        guidance_scale,
        ..input()
    };
    let plain = latents(&mut pipeline, &with("", 8.0), 1);
    assert_eq!(plain, latents(&mut pipeline, &with("a green tree", 8.0), 1));
    assert_ne!(plain, latents(&mut pipeline, &with("", 2.0), 1));
    assert_eq!(pipeline.memory_for(&[&with("", 8.0)]), pipeline.memory_for(&[&with("", 1.0)]));
    // Different scales share a call.
    let (mut a, mut b) =
        (pipeline.begin(&with("", 8.0), 1).unwrap(), pipeline.begin(&with("", 2.0), 1).unwrap());
    let mut together = pipeline.with_images_per_call(2);
    while !a.is_done() {
        together.step(&mut [&mut a, &mut b]).unwrap();
    }
    assert!(distance(a.latents(), &plain) < 1e-4 && a.latents() != b.latents());

    let model = Model::open(Some(folder.path()), None).unwrap();
    assert_eq!(model.rules().scheduler, SchedulerKind::Lcm);
    let (code, stdout, _) = check(folder.path());
    let said = one_line(&stdout);
    assert_eq!(code, Some(0), "{stdout}");
    for part in [
        "guidance an embedding in the UNet",
        "negative prompts have no effect",
        "LCM, where a request names none",
    ] {
        assert!(said.contains(part), "no '{part}' in: {stdout}");
    }
}

#[test]
fn a_guided_checkpoint_in_one_file_draws_as_its_folder() {
    let mut tensors = original();
    tensors.insert("model.diffusion_model.time_embed.cond_proj.weight".to_owned(), cond_proj());
    let checkpoint = Checkpoint::of(&tensors);
    let drawn = |path| latents(&mut pipeline(path).unwrap(), &input(), 5);
    assert_eq!(drawn(&checkpoint.path()), drawn(folder().path()));
}

#[test]
fn an_export_with_a_guidance_embedding_takes_it() {
    let folder = Folder::tiny_sd();
    // What it does with it is the export's own: here it moves the picture by the embedding's mean.
    folder.edit("unet", |model| {
        let graph = model.graph();
        graph.inputs.push(port("timestep_cond", FLOAT, &["batch", "256"]));
        graph.initializers.push(int64s("as_image", &[-1, 1, 1, 1]));
        let moved = port("out_sample", FLOAT, &SAMPLE);
        graph.replace_output("out_sample", moved, |inside, given| {
            vec![
                node(
                    "ReduceMean",
                    &["timestep_cond"],
                    &["guidance_mean"],
                    &[ints("axes", &[1]), int("keepdims", 1)],
                ),
                node("Reshape", &["guidance_mean", "as_image"], &["guidance_image"], &[]),
                node("Add", &[inside, "guidance_image"], &[given], &[]),
            ]
        });
    });
    folder.edit_json("unet/config.json", |unet| {
        unet.insert("time_cond_proj_dim".into(), 256.into());
    });
    let mut pipeline = load(&folder).unwrap();
    assert!(pipeline.warnings().iter().any(|warning| warning.contains("negative prompts have no effect")));
    let with =
        |guidance_scale| GenerationInput { guidance_scale, negative_prompt: "a tree".to_owned(), ..input() };
    let drawn = latents(&mut pipeline, &with(8.0), 1);
    assert_ne!(drawn, latents(&mut pipeline, &with(2.0), 1));
    assert_eq!(
        drawn,
        latents(&mut pipeline, &GenerationInput { negative_prompt: String::new(), ..with(8.0) }, 1)
    );
}

#[test]
fn a_guidance_embedding_without_its_weight_or_of_another_width_is_refused() {
    let folder = folder();
    let file = folder.path().join("unet").join(FILES[1].1);
    let mut unet: Tensors = component("unet", FILES[1].1);
    write(&unet, &file);
    let sentence = refusal(folder.path());
    assert!(sentence.contains("time_cond_proj_dim is 256") && sentence.contains(COND_PROJ), "{sentence}");

    let mut narrow = cond_proj();
    narrow.shape = vec![48, 128];
    narrow.bytes.truncate(48 * 128 * 2);
    unet.insert(COND_PROJ.to_owned(), narrow);
    write(&unet, &file);
    let sentence = refusal(folder.path());
    assert!(sentence.contains(COND_PROJ) && sentence.contains("[48, 128]"), "{sentence}");
}
