//! Two passes and upscaled pictures with the built-in model, against diffusers' (`tests/golden/hires.py`).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod pictures;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ndarray::{Array4, s};
use serde::Deserialize;
use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Generation, Model, Pipeline};
use stablehand::domain::GenerationInput;
use stablehand::runtime::{DeviceChoice, Runtime};

/// Relative, for the final latents.
const TOLERANCE: f64 = 1e-3;
/// The script's.
const STEP: usize = 5;

#[derive(Deserialize)]
struct Table {
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    seed: u64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    upscaler: String,
    scale: f64,
    steps: u32,
    strength: f64,
    hires_steps: Option<u32>,
    hires_scheduler: Option<String>,
    hires_prompt: Option<String>,
    hires_guidance_scale: Option<f64>,
    width: u32,
    height: u32,
    size: [usize; 2],
    latents: Vec<f32>,
}

fn pipeline() -> Pipeline {
    with_wildcards("/nowhere".into())
}

fn with_wildcards(wildcards: PathBuf) -> Pipeline {
    let add_ons = AddOnFolders {
        loras: "/nowhere".into(),
        controlnets: "/nowhere".into(),
        wildcards,
        embeddings: "/nowhere".into(),
        upscalers: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upscalers"),
        tiny_vaes: "/nowhere".into(),
        lora_memory: 0,
        look_every: Duration::from_mins(1),
    };
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    Model::open(None, Some(add_ons)).unwrap().load(&runtime).unwrap()
}

fn input(pipeline: &Pipeline, request: &Value) -> GenerationInput {
    GenerationInput::parse(request, pipeline.model().rules()).unwrap()
}

/// Steps it to its end, and checks that it says how far it is.
fn draw(pipeline: &mut Pipeline, input: &GenerationInput, seed: u64) -> Generation {
    let mut generation = pipeline.begin(input, seed).unwrap();
    let (mut before, all) = generation.progress();
    while !generation.is_done() {
        pipeline.step(&mut [&mut generation]).unwrap();
        let (done, steps) = generation.progress();
        assert!(done >= before && (done < steps || generation.is_done()), "{before} {done} of {steps}");
        before = done;
    }
    let (done, steps) = generation.progress();
    assert!(done == steps && steps <= all && steps + 1 >= all, "{done} {steps} {all}");
    generation
}

fn distance(ours: &Array4<f32>, theirs: &[f32]) -> f64 {
    let ours: Vec<f32> = ours.iter().copied().step_by(STEP).collect();
    assert_eq!(ours.len(), theirs.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut theirs.iter().map(|&b| f64::from(b)))
}

#[test]
fn two_passes_draw_what_diffusers_draws_in_two_passes() {
    let table: Table = serde_json::from_str(include_str!("../golden/pipelines/hires.json")).unwrap();
    let mut pipeline = pipeline();
    let mut far = Vec::new();
    for case in table.cases {
        let name = format!("{} {}", case.scheduler, case.upscaler);
        let request = json!({
            "prompt": table.prompt, "negative_prompt": table.negative_prompt, "num_outputs": 2,
            // The built-in model has defaults of its own for the first two.
            "guidance_rescale": 0, "guidance_end": 1, "guidance_scale": table.guidance_scale, "width": case.width, "height": case.height,
            "num_inference_steps": case.steps, "scheduler": case.scheduler,
            "hires": {
                "scale": case.scale, "upscaler": case.upscaler, "strength": case.strength,
                "steps": case.hires_steps, "scheduler": case.hires_scheduler, "prompt": case.hires_prompt,
                "guidance_scale": case.hires_guidance_scale,
            },
        });
        let input = input(&pipeline, &request);
        let generation = draw(&mut pipeline, &input, table.seed);
        let [width, height] = case.size;
        assert_eq!(generation.latents().dim(), (2, 4, height / 8, width / 8), "{name}");
        let distance = distance(generation.latents(), &case.latents);
        println!("{name}: {distance:e}");
        if distance > TOLERANCE {
            far.push(name);
        }
    }
    assert!(far.is_empty(), "{far:?}");
}

#[test]
fn the_second_pass_of_one_job_goes_on_beside_others() {
    let mut pipeline = pipeline();
    let hires = json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 3,
        "hires": { "scale": 2, "upscaler": "x2", "strength": 0.7 } });
    let plain = json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 5 });
    let (hires, plain) = (input(&pipeline, &hires), input(&pipeline, &plain));
    let alone = [draw(&mut pipeline, &hires, 5), draw(&mut pipeline, &plain, 5)];
    let mut batch = [pipeline.begin(&hires, 5).unwrap(), pipeline.begin(&plain, 5).unwrap()];
    while batch.iter().any(|generation| !generation.is_done()) {
        pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
    }
    for (together, alone) in batch.iter().zip(&alone) {
        assert_eq!(together.latents(), alone.latents());
    }
    let sizes: Vec<_> =
        batch.iter().map(|generation| pipeline.finish(generation).unwrap()[0].image.width).collect();
    assert_eq!(sizes, [128, 64]);
}

#[test]
fn the_text_of_a_picture_draws_it_again_and_says_how_in_a1111_s_words() {
    let mut pipeline = pipeline();
    let request = json!({ "prompt": "a fox", "width": 64, "height": 96, "num_inference_steps": 4, "num_outputs": 2,
        "seed": 9, "hires": { "width": 128, "height": 128, "upscaler": "compact", "steps": 3, "strength": 0.5,
        "prompt": "a red fox", "scheduler": "Euler a" } });
    let asked = input(&pipeline, &request);
    let drawn = pipeline.draw(&asked, 9).unwrap().remove(1);
    assert_eq!((drawn.image.width, drawn.image.height), (128, 128));
    let text = &drawn.texts.parameters;
    assert!(text.contains("Size: 64x96,"), "{text}");
    let hires = "Denoising strength: 0.5, Hires resize: 128x128, Hires steps: 3, Hires upscaler: compact, Hires sampler: \
                 Euler a, Hires prompt: a red fox,";
    assert!(text.contains(hires), "{text}");
    let again = input(&pipeline, &serde_json::from_str(&drawn.texts.request).unwrap());
    let again = pipeline.draw(&again, again.seed.unwrap()).unwrap().remove(0);
    assert!(again.image == drawn.image);
}

#[test]
fn a_second_pass_needs_more_memory_and_an_upscaler_its_own() {
    let pipeline = pipeline();
    let request = |hires: Value| json!({ "prompt": "a fox", "width": 128, "height": 128, "hires": hires });
    let plain = input(&pipeline, &json!({ "prompt": "a fox", "width": 128, "height": 128 }));
    let latent = input(&pipeline, &request(json!({ "scale": 4 })));
    let model = input(&pipeline, &request(json!({ "scale": 4, "upscaler": "x4" })));
    let [plain, latent, model] = [plain, latent, model].map(|input| pipeline.memory_for(&[&input]));
    assert!(plain < latent && latent < model, "{plain} {latent} {model}");
}

#[test]
fn a_prompt_changes_at_the_steps_of_the_second_pass() {
    let mut pipeline = pipeline();
    let mut latents = |prompt: &str| {
        let request = json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 4,
            "scheduler": "DDIM", "hires": { "scale": 1, "strength": 1, "prompt": prompt } });
        let input = input(&pipeline, &request);
        draw(&mut pipeline, &input, 5).latents().clone()
    };
    let (red, blue) = (latents("a red heart"), latents("a blue tree"));
    let changed = latents("a [red heart:blue tree:1.5]");
    assert!(changed != red && changed != blue);
    assert_eq!(changed, latents("a [red heart:blue tree:6]"), "whole steps are counted on");
    assert_eq!(red, latents("a [red heart:blue tree:8]"));
    let alternating = latents("a [red heart|blue tree]");
    assert!(alternating != red && alternating != blue && alternating != changed);
}

#[test]
fn a_job_that_is_cut_short_before_its_second_pass_ends_with_the_first_picture() {
    let mut pipeline = pipeline();
    let plain = json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 3 });
    let mut hires = plain.clone();
    hires["hires"] = json!({ "scale": 2, "upscaler": "x2" });
    let (plain, hires) = (input(&pipeline, &plain), input(&pipeline, &hires));
    let first = draw(&mut pipeline, &plain, 5);
    for steps in 1..=4 {
        let mut generation = pipeline.begin(&hires, 5).unwrap();
        (0..steps).for_each(|_| pipeline.step(&mut [&mut generation]).unwrap());
        pipeline.cut_short(&mut generation).unwrap();
        assert!(generation.is_done(), "{steps}");
        assert_eq!(generation.latents() == first.latents(), steps >= 3, "{steps}");
        assert!(generation.warnings().iter().any(|sentence| sentence.contains("were stopped after")));
        assert_eq!(pipeline.finish(&generation).unwrap()[0].image.width, 64);
    }
}

#[test]
fn the_warnings_of_both_passes_are_told_once() {
    let mut pipeline = pipeline();
    let request = json!({ "prompt": "embedding:nobody", "width": 64, "height": 64, "num_inference_steps": 2,
        "hires": { "scale": 1, "prompt": "embedding:nobody embedding:noone" } });
    let input = input(&pipeline, &request);
    let generation = draw(&mut pipeline, &input, 5);
    let told = |name: &str| {
        let named = format!("embedding:{name} names no textual inversion");
        generation.warnings().iter().filter(|sentence| sentence.starts_with(&named)).count()
    };
    assert_eq!((told("nobody"), told("noone")), (1, 1), "{:?}", generation.warnings());
}

#[test]
fn the_middle_of_an_enlarged_picture_is_cut_from_its_latents() {
    let mut pipeline = pipeline();
    let mut enlarged = |hires: Value| {
        let request =
            json!({ "prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 3, "hires": hires });
        let input = input(&pipeline, &request);
        draw(&mut pipeline, &input, 5).latents().clone()
    };
    // With a strength of 0, the latents are those of the enlarged picture.
    let whole = enlarged(json!({ "scale": 2, "upscaler": "lanczos", "strength": 0 }));
    let cut = enlarged(json!({ "width": 64, "height": 128, "upscaler": "lanczos", "strength": 0 }));
    assert_eq!(cut, whole.slice(s![.., .., .., 4..12]));
}

#[test]
fn what_cannot_be_drawn_in_the_second_pass_fails_before_the_first() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("animal.txt"), "fox AND cat\n").unwrap();
    let mut pipeline = with_wildcards(dir.path().to_owned());
    let mut refused = |hires: Value| {
        let request = json!({ "prompt": "a fox", "wildcards": true, "hires": hires });
        pipeline.begin(&input(&pipeline, &request), 5).err().unwrap().to_string()
    };
    assert_eq!(
        refused(json!({ "prompt": "__animal__" })),
        "the prompt cannot be encoded: hires.prompt cannot be drawn. A wildcard draws an AND into it; write AND into the prompt itself."
    );
    assert_eq!(
        refused(json!({ "steps": 60, "scheduler": "LCM" })),
        "hires.steps is 60, but this schedule has between 1 and 50 steps"
    );
}
