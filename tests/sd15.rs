//! The full-size architecture of Stable Diffusion v1.5, in every form, draws diffusers' latents.
//!
//! The model (with random weights) and diffusers' latents are made by `tests/golden/make_sd15.py`, which takes minutes
//! and gigabytes, so this is not part of every run:
//!
//!     python tests/golden/make_sd15.py OUT
//!     STABLEHAND_SD15=OUT cargo test --release --test sd15 -- --ignored --nocapture

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "one picture of two is used here")]
#[path = "golden/pictures.rs"]
mod pictures;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::Array4;
use serde::Deserialize;
use stablehand::diffusion::{AddOnFolders, Model, Pipeline};
use stablehand::domain::{
    ControlMode, ControlResize, ControlUnit, GenerationInput, ImageSize, Preprocessor, SchedulerKind,
};
use stablehand::runtime::{DeviceChoice, Runtime};

use self::pictures::{distance, start_picture};

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    width: u32,
    height: u32,
    num_inference_steps: u32,
    guidance_scale: f32,
    latents: String,
}

/// Of the latents after the last step, relative to their size.
const TOLERANCE: f64 = 1e-3;

fn folder() -> PathBuf {
    PathBuf::from(std::env::var_os("STABLEHAND_SD15").expect("STABLEHAND_SD15 names what make_sd15.py wrote"))
}

/// The f32 values of a `.npy` file whose first axis is the step, of the last step.
fn last_step(path: &Path, steps: usize) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let values: Vec<f32> =
        bytes[header..].chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    values[values.len() / steps * (steps - 1)..].to_vec()
}

fn latents(pipeline: &mut Pipeline, case: &Case) -> Vec<f32> {
    let input = GenerationInput {
        negative_prompt: case.negative_prompt.clone(),
        size: ImageSize { width: case.width, height: case.height },
        num_inference_steps: case.num_inference_steps,
        guidance_scale: case.guidance_scale,
        scheduler: SchedulerKind::parse(&case.scheduler).unwrap().0,
        ..GenerationInput::new(&case.prompt)
    };
    let mut generation = pipeline.begin(&input, case.seed).unwrap();
    while !generation.is_done() {
        pipeline.step(&mut [&mut generation]).unwrap();
    }
    generation.latents().iter().copied().collect()
}

fn every_form_draws_the_latents(device: DeviceChoice, tolerance: f64) {
    let folder = folder();
    let runtime = Runtime::load(device).unwrap();
    let cases: Vec<Case> =
        serde_json::from_slice(&fs::read(folder.join("golden/cases.json")).unwrap()).unwrap();
    let forms = ["ldm.safetensors", "diffusers", "onnx"].map(|form| folder.join(form));
    for form in forms.iter().filter(|form| form.exists()) {
        let mut pipeline = Model::open(Some(form), None).unwrap().load(&runtime).unwrap();
        for case in &cases {
            let expected =
                last_step(&folder.join("golden").join(&case.latents), case.num_inference_steps as usize);
            let started = Instant::now();
            let drawn = latents(&mut pipeline, case);
            let seconds = started.elapsed().as_secs_f64();
            assert_eq!(drawn.len(), expected.len());
            let squares =
                |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
            let apart = squares(&mut drawn.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
            let size = squares(&mut expected.iter().map(|value| f64::from(*value)));
            let relative = (apart / size).sqrt();
            let name = form.file_name().unwrap().to_string_lossy();
            println!("{name}, {}: {relative:.2e} relative, {seconds:.1} s", case.scheduler);
            assert!(relative < tolerance, "{name}, {}: {relative:e}", case.scheduler);
        }
    }
}

#[test]
#[ignore = "needs the model that tests/golden/make_sd15.py makes"]
fn every_form_draws_the_latents_of_diffusers() {
    every_form_draws_the_latents(DeviceChoice::Cpu, TOLERANCE);
}

/// A line of this process's status, in bytes.
fn process_memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
#[ignore = "needs the model that tests/golden/make_sd15.py makes, and a process of its own"]
fn a_picture_takes_the_memory_that_is_planned_and_gives_it_back() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let model = Model::open(Some(&folder().join("ldm.safetensors")), None).unwrap();
    let mut pipeline = model.load(&runtime).unwrap();
    let loaded = process_memory("VmRSS:");
    let input = GenerationInput {
        size: ImageSize { width: 512, height: 512 },
        num_inference_steps: 1,
        ..GenerationInput::new("a fox")
    };
    for _ in 0..2 {
        pipeline.draw(&input, 1).unwrap();
        let (resident, planned) = (process_memory("VmRSS:"), pipeline.memory());
        let most = process_memory("VmHWM:");
        println!("loaded {loaded}, then {resident}, at most {most}, planned {planned}");
        assert!(most.abs_diff(planned) * 10 <= planned, "{most} at most, {planned} planned");
        assert!(resident < loaded + loaded / 50, "{loaded} before, {resident} afterwards");
    }
}

#[test]
#[ignore = "needs CUDA"]
fn every_form_draws_the_latents_of_diffusers_on_cuda() {
    // Half precision at every step.
    every_form_draws_the_latents(DeviceChoice::Cuda(0), 5e-2);
}

/// What `make_sd15_controlnet.py` wrote.
#[derive(Deserialize)]
struct ControlledCase {
    prompt: String,
    negative_prompt: String,
    seed: u64,
    size: u32,
    steps: u32,
    guidance_scale: f32,
    weight: f32,
    latents: Vec<f32>,
}

fn a_controlnet_draws_the_latents(device: DeviceChoice, tolerance: f64) {
    let folder = folder();
    let case: ControlledCase =
        serde_json::from_slice(&fs::read(folder.join("golden/controlnet.json")).unwrap()).unwrap();
    let add_ons = AddOnFolders {
        upscalers: "/nowhere".into(),
        tiny_vaes: "/nowhere".into(),
        wildcards: "/nowhere".into(),
        loras: folder.join("loras"),
        controlnets: folder.join("controlnets"),
        embeddings: folder.join("embeddings"),
        lora_memory: u64::MAX,
        look_every: Duration::ZERO,
    };
    let model = Model::open(Some(&folder.join("diffusers")), Some(add_ons)).unwrap();
    let mut pipeline = model.load(&Runtime::load(device).unwrap()).unwrap();
    let unit = ControlUnit {
        model: "random".to_owned(),
        image: start_picture(case.size, case.size),
        weight: case.weight,
        start: 0.0,
        end: 1.0,
        preprocess: Preprocessor::None,
        thresholds: [0.0; 2],
        mode: ControlMode::Balanced,
        resize: ControlResize::Stretch,
    };
    let input = GenerationInput {
        negative_prompt: case.negative_prompt,
        size: ImageSize { width: case.size, height: case.size },
        num_inference_steps: case.steps,
        guidance_scale: case.guidance_scale,
        scheduler: SchedulerKind::Ddim,
        controlnets: vec![unit],
        ..GenerationInput::new(case.prompt)
    };
    let mut seconds = |input: &GenerationInput| {
        let mut generation = pipeline.begin(input, case.seed).unwrap();
        let started = Instant::now();
        while !generation.is_done() {
            pipeline.step(&mut [&mut generation]).unwrap();
        }
        (started.elapsed().as_secs_f64() / f64::from(case.steps), generation.latents().clone())
    };
    let (controlled, drawn) = seconds(&input);
    let (free, _) = seconds(&GenerationInput { controlnets: Vec::new(), ..input.clone() });
    let expected = Array4::from_shape_vec(drawn.raw_dim(), case.latents).unwrap();
    let away = distance(&drawn, &expected);
    println!("{away:.1e} relative; a step takes {controlled:.2} s with the ControlNet, {free:.2} s without");
    assert!(away < tolerance, "{away:e}");
}

#[test]
#[ignore = "needs what tests/golden/make_sd15_controlnet.py makes"]
fn a_controlnet_of_full_size_draws_the_latents_of_diffusers() {
    a_controlnet_draws_the_latents(DeviceChoice::Cpu, TOLERANCE);
}

#[test]
#[ignore = "needs CUDA, and what tests/golden/make_sd15_controlnet.py makes"]
fn a_controlnet_of_full_size_draws_the_latents_of_diffusers_on_cuda() {
    a_controlnet_draws_the_latents(DeviceChoice::Cuda(0), 5e-2);
}
