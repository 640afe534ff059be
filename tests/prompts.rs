//! Prompts of parts, prompts that change from step to step, and prompts with wildcards, drawn by the built-in model.
//!
//! `tests/golden/prompt_parts.py` computed the reference latents.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/pictures.rs"]
#[expect(dead_code, reason = "other tests start from pictures")]
mod pictures;

use std::time::Duration;

use ndarray::Array4;
use serde::Deserialize;
use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Generation, Model, Picture, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, InputRules, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

const GOLDEN: &str = include_str!("golden/pipelines/prompt_parts.json");
/// Relative, for the final latents.
const LATENT_TOLERANCE: f64 = 1e-3;
const SIZE: ImageSize = ImageSize { width: 64, height: 64 };

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    steps: u32,
    seed: u64,
    guidance_scale: f32,
    guidance_end: f64,
    prompt: String,
    negative_prompt: String,
    latents: Vec<f32>,
}

impl Case {
    fn input(&self) -> GenerationInput {
        GenerationInput {
            negative_prompt: self.negative_prompt.clone(),
            size: SIZE,
            num_inference_steps: self.steps,
            guidance_scale: self.guidance_scale,
            guidance_end: self.guidance_end,
            scheduler: SchedulerKind::parse(&self.scheduler).unwrap().0,
            ..GenerationInput::new(&self.prompt)
        }
    }
}

fn pipeline(images: usize) -> Pipeline {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    Model::open(None, None).unwrap().load(&runtime).unwrap().with_images_per_call(images)
}

fn finished(pipeline: &mut Pipeline, mut batch: Vec<Generation>) -> Vec<Generation> {
    while batch.iter().any(|generation| !generation.is_done()) {
        pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
    }
    batch
}

#[test]
fn parts_and_changing_prompts_are_drawn_as_in_the_reference() {
    let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
    let (mut alone, mut together) = (pipeline(1), pipeline(8));
    let batch = cases.iter().map(|case| together.begin(&case.input(), case.seed).unwrap()).collect();
    let batch = finished(&mut together, batch);
    for (case, side_by_side) in cases.iter().zip(&batch) {
        let generation = alone.begin(&case.input(), case.seed).unwrap();
        let generation = finished(&mut alone, vec![generation]).remove(0);
        let theirs = Array4::from_shape_vec((1, 4, 8, 8), case.latents.clone()).unwrap();
        let distance = pictures::distance(generation.latents(), &theirs);
        println!("{}: {distance:e}", case.prompt);
        assert!(distance <= LATENT_TOLERANCE, "{}: {distance:e}", case.prompt);
        let distance = pictures::distance(side_by_side.latents(), generation.latents());
        assert!(distance <= 1e-4, "{}: {distance:e} beside others", case.prompt);
    }
}

#[test]
fn a_second_pass_changes_its_prompt_by_its_own_steps() {
    let mut pipeline = pipeline(1);
    let mut drawn = |prompt: &str| {
        let input = json!({
            "prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 6, "guidance_scale": 2,
            "scheduler": "EULER-D", "hires": {"scale": 2, "steps": 8, "strength": 0.5, "prompt": prompt},
        });
        let input = GenerationInput::parse(&input, &InputRules::default()).unwrap();
        let generation = pipeline.begin(&input, 7).unwrap();
        finished(&mut pipeline, vec![generation]).remove(0).latents().clone()
    };
    let (heart, tree) = (drawn("a red heart"), drawn("a green tree"));
    assert_ne!(heart, tree);
    // It makes four of its eight steps.
    assert_eq!(drawn("[a red heart:a green tree:1.5]"), heart);
    let changed = drawn("[a red heart:a green tree:1.25]");
    assert!(changed != heart && changed != tree);
}

/// The PNG's own request.
fn request(picture: &Picture) -> Value {
    serde_json::from_str(&picture.texts.request).unwrap()
}

#[test]
fn wildcards_are_drawn_by_each_picture_s_seed_and_the_png_says_what_was_drawn() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("colour.txt"), "red\nblue\ngreen\nyellow\n").unwrap();
    let folders = AddOnFolders {
        upscalers: "/nowhere".into(),
        tiny_vaes: "/nowhere".into(),
        controlnets: "/nowhere".into(),
        loras: dir.path().join("none"),
        embeddings: dir.path().join("none"),
        wildcards: dir.path().to_owned(),
        lora_memory: 0,
        look_every: Duration::ZERO,
    };
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let model = Model::open(None, Some(folders)).unwrap();
    let rules = model.rules().clone();
    let parse = |input: &Value| GenerationInput::parse(input, &rules).unwrap();
    let mut pipeline = model.load(&runtime).unwrap();
    let wild = json!({
        "prompt": "a __colour__ {heart|house BREAK tree} {AND rain:-0.2|}", "negative_prompt": "{snow|}", "wildcards": true,
        "num_outputs": 6, "num_inference_steps": 2, "width": 64, "height": 64, "guidance_scale": 3,
    });
    let pictures = pipeline.draw(&parse(&wild), 40).unwrap();
    let prompts: Vec<_> = pictures.iter().map(|picture| request(picture)["prompt"].to_string()).collect();
    assert!(prompts.iter().any(|prompt| *prompt != prompts[0]), "{prompts:?}");
    for (seed, picture) in (40..).zip(&pictures) {
        let request = request(picture);
        let prompt = request["prompt"].as_str().unwrap();
        assert!(
            !prompt.contains(['{', '_']) && picture.texts.parameters.starts_with(prompt.trim()),
            "{prompt}"
        );
        assert_eq!(request.get("wildcards"), None);
        let mut alone = wild.clone();
        alone["num_outputs"] = json!(1);
        let alone = pipeline.draw(&parse(&alone), seed).unwrap().remove(0);
        assert_eq!(alone.texts.request, picture.texts.request);
        assert_eq!(alone.png, picture.png, "{prompt}");
        let again = pipeline.draw(&parse(&request), seed).unwrap().remove(0);
        assert_eq!(again.png, picture.png, "{prompt}");
    }
    // Only the pictures with AND are guided.
    let mut unguided = wild.clone();
    unguided["guidance_scale"] = json!(1);
    for (seed, picture) in (40..).zip(pipeline.draw(&parse(&unguided), 40).unwrap()) {
        let again = pipeline.draw(&parse(&request(&picture)), seed).unwrap().remove(0);
        assert_eq!(again.png, picture.png, "{}", picture.texts.request);
    }
}

#[test]
fn a_name_that_no_embedding_has_is_said() {
    let mut pipeline = pipeline(1);
    let input = GenerationInput {
        size: SIZE,
        num_inference_steps: 1,
        ..GenerationInput::new("a embedding:nobody, b")
    };
    let generation = pipeline.begin(&input, 1).unwrap();
    assert_eq!(
        generation.warnings(),
        ["embedding:nobody names no textual inversion: it was read as plain words."]
    );
}
