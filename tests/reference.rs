//! The built-in model draws what diffusers' own pipelines draw with it.
//!
//! `tests/golden/pipelines.py` ran those: every scheduler, from text, from a picture and with a mask, 1 to 50 steps, two
//! sizes. Its results are compared here, without Python.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/pictures.rs"]
mod pictures;

use ndarray::{Array4, Axis};
use serde::Deserialize;
use stablehand::diffusion::{Generation, Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use self::pictures::{distance, start_mask, start_picture};

const TABLE: &str = include_str!("golden/pipelines/cases.json");
const LATENTS: &[u8] = include_bytes!("golden/pipelines/latents.bin");

/// Relative, for the final latents.
const LATENT_TOLERANCE: f64 = 1e-3;
const LEAST_PSNR: f64 = 50.0;
/// How many pictures are drawn side by side. It must not change them.
const BATCH: usize = 8;

#[derive(Deserialize)]
struct Table {
    prompt: String,
    negative_prompt: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    mode: String,
    width: u32,
    height: u32,
    steps: u32,
    seed: u64,
    guidance_scale: f32,
    strength: Option<f64>,
    timesteps: Vec<f32>,
    png: Option<String>,
}

impl Case {
    fn name(&self) -> String {
        format!("{} {} {}×{} {} steps", self.scheduler, self.mode, self.width, self.height, self.steps)
    }

    fn input(&self, table: &Table) -> GenerationInput {
        let starts_from_picture = self.mode != "text";
        GenerationInput {
            negative_prompt: table.negative_prompt.clone(),
            size: ImageSize { width: self.width, height: self.height },
            num_inference_steps: self.steps,
            guidance_scale: self.guidance_scale,
            scheduler: SchedulerKind::parse(&self.scheduler).unwrap().0,
            init_image: starts_from_picture.then(|| start_picture(self.width, self.height)),
            mask: (self.mode == "inpaint").then(|| start_mask(self.width, self.height)),
            prompt_strength: self.strength.unwrap_or(1.0),
            ..GenerationInput::new(&table.prompt)
        }
    }
}

/// The golden latents of each case.
fn expected(cases: &[Case]) -> Vec<Array4<f32>> {
    let mut floats = LATENTS.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
    let expected = cases
        .iter()
        .map(|case| {
            let shape = (1, 4, case.height as usize / 8, case.width as usize / 8);
            Array4::from_shape_simple_fn(shape, || floats.next().unwrap())
        })
        .collect();
    assert!(floats.next().is_none(), "the file holds the cases and nothing else");
    expected
}

/// Equal to the bit where they are arithmetic. IPNDM's are arcs, and KDPM2's middles are looked up by sigma. There torch's
/// functions differ by processor in the last bit, and KDPM2-A's differences of squares magnify that.
fn same_timesteps(case: &Case, ours: &[f32]) -> bool {
    let tolerance = match case.scheduler.as_str() {
        "IPNDM" => 1e-6,
        "KDPM2-A" if case.steps < 4 => 1e-2,
        "KDPM2-A" | "KDPM2-D" => 2e-4,
        _ => 0.0,
    };
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= tolerance;
    ours.len() == case.timesteps.len() && ours.iter().zip(&case.timesteps).all(near)
}

/// In decibels, of bytes.
fn psnr(ours: &[u8], theirs: &[u8]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let squares: f64 = ours.iter().zip(theirs).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    let mean = squares / f64::from(u32::try_from(ours.len()).unwrap());
    10.0 * (255.0 * 255.0 / mean.max(1e-12)).log10()
}

fn draw(pipeline: &mut Pipeline, inputs: &[(GenerationInput, u64)]) -> Vec<Generation> {
    let mut batch: Vec<_> =
        inputs.iter().map(|(input, seed)| pipeline.begin(input, *seed).unwrap()).collect();
    while batch.iter().any(|generation| !generation.is_done()) {
        pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
    }
    batch
}

#[test]
fn every_scheduler_draws_what_diffusers_draws() {
    let table: Table = serde_json::from_str(TABLE).unwrap();
    let expected = expected(&table.cases);
    let mut cases: Vec<_> = table.cases.iter().zip(&expected).collect();
    // Pictures that are drawn side by side should have one size and end together.
    cases.sort_by_key(|(case, _)| (case.width, case.steps));

    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let model = Model::open(None, None).unwrap();
    let mut pipeline = model.load(&runtime).unwrap().with_images_per_call(BATCH);
    let (mut furthest, mut worst_psnr) = ((0.0, String::new()), f64::INFINITY);
    for chunk in cases.chunks(BATCH) {
        let inputs: Vec<_> = chunk.iter().map(|(case, _)| (case.input(&table), case.seed)).collect();
        for (generation, (case, theirs)) in draw(&mut pipeline, &inputs).iter().zip(chunk) {
            let name = case.name();
            assert!(same_timesteps(case, generation.timesteps()), "{name}: {:?}", generation.timesteps());
            let distance = distance(generation.latents(), theirs);
            assert!(distance <= LATENT_TOLERANCE, "{name}: {distance:e}");
            if distance > furthest.0 {
                furthest = (distance, name.clone());
            }
            if case.steps == 20 {
                let picture = pipeline.finish(generation).unwrap().remove(0).image;
                let golden = pipeline.decode(theirs).unwrap();
                let psnr = psnr(&picture.pixels, &golden.pixels);
                assert!(psnr >= LEAST_PSNR, "{name}: {psnr} dB");
                worst_psnr = worst_psnr.min(psnr);
            }
            if let Some(file) = &case.png {
                let picture = pipeline.finish(generation).unwrap().remove(0).image;
                let path = format!("{}/tests/golden/pipelines/{file}", env!("CARGO_MANIFEST_DIR"));
                let golden = image::open(path).unwrap().into_rgb8();
                let psnr = psnr(&picture.pixels, golden.as_raw());
                assert!(psnr >= LEAST_PSNR, "{name}: {psnr} dB");
                worst_psnr = worst_psnr.min(psnr);
            }
        }
    }
    println!(
        "{} cases; furthest {:e} ({}); at least {worst_psnr:.1} dB",
        cases.len(),
        furthest.0,
        furthest.1
    );
}

#[test]
fn a_batch_of_eight_draws_what_eight_single_runs_draw() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let load = || Model::open(None, None).unwrap().load(&runtime).unwrap();
    let (mut alone, mut together) = (load().with_images_per_call(1), load().with_images_per_call(8));
    let size = ImageSize { width: 64, height: 96 };
    for (scheduler, init_image) in
        [(SchedulerKind::EulerA, None), (SchedulerKind::DpmM, Some(start_picture(64, 96)))]
    {
        let one = GenerationInput {
            size,
            num_inference_steps: 20,
            scheduler,
            init_image,
            ..GenerationInput::new("a penguin on an orange background")
        };
        let eight = GenerationInput { num_outputs: 8, ..one.clone() };
        let batch = draw(&mut together, &[(eight, 100)]).remove(0);
        for (seed, image) in (100..).zip(batch.latents().axis_chunks_iter(Axis(0), 1)) {
            let single = draw(&mut alone, &[(one.clone(), seed)]).remove(0);
            let distance = distance(&image.to_owned(), single.latents());
            assert!(distance <= 1e-4, "{scheduler}, seed {seed}: {distance:e}");
        }
    }
}
