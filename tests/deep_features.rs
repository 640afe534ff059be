//! Pictures whose calls reuse deep features, compared with what DeepCache's own package draws with the built-in model.
//!
//! `tests/golden/deep_features.py` ran that, in torch.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/pictures.rs"]
mod pictures;

use ndarray::Array4;
use serde::Deserialize;
use serde_json::{Value, json};
use stablehand::diffusion::{Generation, Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use self::pictures::{distance, start_mask, start_picture};

const GOLDEN: &str = include_str!("golden/pipelines/deep_features.json");
/// Relative, for the final latents.
const LATENT_TOLERANCE: f64 = 1e-3;
const SIDE: u32 = 64;

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    mode: String,
    steps: u32,
    guidance_scale: f32,
    cache_interval: u32,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    /// How far the picture of whole calls is, relative.
    change: f64,
    latents: Vec<f32>,
}

impl Case {
    fn name(&self) -> String {
        let Self { scheduler, mode, steps, cache_interval, .. } = self;
        format!("{scheduler} {mode} {steps} steps, every {cache_interval}th whole")
    }

    fn input(&self) -> GenerationInput {
        GenerationInput {
            negative_prompt: self.negative_prompt.clone(),
            size: ImageSize { width: SIDE, height: SIDE },
            num_inference_steps: self.steps,
            guidance_scale: self.guidance_scale,
            cache_interval: self.cache_interval,
            scheduler: SchedulerKind::parse(&self.scheduler).unwrap().0,
            init_image: (self.mode == "image").then(|| start_picture(SIDE, SIDE)),
            prompt_strength: 0.6,
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

fn drawn(pipeline: &mut Pipeline, input: &GenerationInput, seed: u64) -> Array4<f32> {
    let generation = pipeline.begin(input, seed).unwrap();
    finished(pipeline, vec![generation]).remove(0).latents().clone()
}

#[test]
fn reused_features_draw_what_deepcache_draws() {
    let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
    let mut alone = pipeline(1);
    for case in &cases {
        let theirs = Array4::from_shape_vec((1, 4, 8, 8), case.latents.clone()).unwrap();
        let ours = drawn(&mut alone, &case.input(), case.seed);
        let to_theirs = distance(&ours, &theirs);
        println!("{}: {to_theirs:e}", case.name());
        assert!(to_theirs <= LATENT_TOLERANCE, "{}: {to_theirs:e}", case.name());
        let whole = GenerationInput { cache_interval: 1, ..case.input() };
        let change = distance(&theirs, &drawn(&mut alone, &whole, case.seed));
        assert!((change - case.change).abs() < 2e-3 && change > 0.05, "{}: {change}", case.name());
    }
}

/// Jobs with other intervals, and without one, share calls where they can. It must not change them.
#[test]
fn jobs_side_by_side_draw_what_each_draws_alone() {
    let cases: Vec<Case> = serde_json::from_str(GOLDEN).unwrap();
    let mut inputs: Vec<_> = cases.iter().map(|case| (case.input(), case.seed)).collect();
    let (first, seed) = inputs[0].clone();
    inputs.push((GenerationInput { cache_interval: 1, ..first.clone() }, seed));
    inputs.push((GenerationInput { num_outputs: 3, guidance_end: 0.5, ..first }, seed));
    let mut together = pipeline(8);
    let batch = inputs.iter().map(|(input, seed)| together.begin(input, *seed).unwrap()).collect();
    let batch = finished(&mut together, batch);
    let mut alone = pipeline(1);
    for (index, ((input, seed), side_by_side)) in inputs.iter().zip(&batch).enumerate() {
        let distance = distance(side_by_side.latents(), &drawn(&mut alone, input, *seed));
        assert!(distance <= 1e-4, "{index}: {distance:e}");
    }
}

#[test]
fn the_png_tells_the_interval() {
    let mut pipeline = pipeline(1);
    let request = json!({"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 4, "cache_interval": 2});
    let input = GenerationInput::parse(&request, pipeline.model().rules()).unwrap();
    let picture = pipeline.draw(&input, 3).unwrap().remove(0);
    assert!(picture.texts.parameters.contains(", Cache interval: 2,"), "{}", picture.texts.parameters);
    let told: Value = serde_json::from_str(&picture.texts.request).unwrap();
    assert_eq!(told["cache_interval"], 2);
    let again = GenerationInput::parse(&told, pipeline.model().rules()).unwrap();
    assert!(pipeline.draw(&again, 3).unwrap()[0].png == picture.png);
}

/// A mask's rest stays, whatever is reused.
#[test]
fn a_masked_picture_keeps_its_rest() {
    let mut pipeline = pipeline(1);
    let input = GenerationInput {
        size: ImageSize { width: SIDE, height: SIDE },
        num_inference_steps: 6,
        cache_interval: 3,
        scheduler: SchedulerKind::EulerD,
        init_image: Some(start_picture(SIDE, SIDE)),
        mask: Some(start_mask(SIDE, SIDE)),
        ..GenerationInput::new("a red heart")
    };
    let reused = drawn(&mut pipeline, &input, 5);
    let whole = drawn(&mut pipeline, &GenerationInput { cache_interval: 1, ..input }, 5);
    // The mask is white from pixel 28: from the latents' column 3.
    let kept = |latents: &Array4<f32>| latents.slice(ndarray::s![.., .., .., ..3]).to_owned();
    assert_eq!(kept(&reused), kept(&whole));
    assert_ne!(reused, whole);
}
