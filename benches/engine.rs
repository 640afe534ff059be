//! Where the engine's time goes, on the CPU with the built-in model: `cargo bench --bench engine`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ndarray::Array4;
use serde_json::json;
use stablehand::diffusion::{
    BatchNoise, Model, Pipeline, RgbImage, SchedulerConfig, Tokenizer, build_scheduler, encode_png,
};
use stablehand::domain::{GenerationInput, ImageSize, NoiseSource, Sampling, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

fn main() {
    let started = Instant::now();
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads");
    say("load ONNX Runtime", started.elapsed());
    let started = Instant::now();
    let model = Model::open(None, None).expect("the built-in model opens");
    say("open tiny-sd", started.elapsed());
    let started = Instant::now();
    let mut pipeline = model.load(&runtime).expect("the built-in model loads");
    say("load tiny-sd", started.elapsed());

    jobs(&mut pipeline);
    saves(&mut pipeline);
    parts(model.tokenizer());
    scheduler_steps();
}

/// Whole jobs of 50 steps, and the share of them outside `Session::run`.
fn jobs(pipeline: &mut Pipeline) {
    for side in [128, 512] {
        let input = GenerationInput {
            size: ImageSize { width: side, height: side },
            ..GenerationInput::new("a red fox")
        };
        let mut runs: Vec<(Duration, Duration)> = (0..5)
            .map(|_| {
                let (started, in_run) = (Instant::now(), pipeline.time_in_run());
                let mut generation = pipeline.begin(&input, 1).expect("it begins");
                while !generation.is_done() {
                    pipeline.step(&mut [&mut generation]).expect("it steps");
                }
                black_box(pipeline.finish(&generation).expect("it finishes"));
                (started.elapsed(), pipeline.time_in_run().saturating_sub(in_run))
            })
            .collect();
        runs.sort();
        let (whole, in_run) = runs[runs.len() / 2];
        let outside = 100.0 * whole.saturating_sub(in_run).as_secs_f64() / whole.as_secs_f64();
        say(&format!("50 steps, {side}×{side}, guided"), whole);
        println!("{:44} {outside:9.2} %", "  of which outside Session::run");
    }
}

/// What a save costs the engine's thread, with latents of 64×64: those of 512×512 pixels. A second pass has them with any model.
/// A server saves a job once in ten seconds at most.
fn saves(pipeline: &mut Pipeline) {
    for (scheduler, remembers) in [("EULER-A", "nothing"), ("K-LMS", "four answers")] {
        for images in [1, 4] {
            let request = json!({
                "prompt": "a red fox", "scheduler": scheduler, "num_outputs": images, "num_inference_steps": 6,
                "width": 128, "height": 128, "hires": {"scale": 4, "strength": 1},
            });
            let input = GenerationInput::parse(&request, pipeline.model().rules()).expect("it is valid");
            let mut generation = pipeline.begin(&input, 1).expect("it begins");
            while generation.progress().0 < 11 {
                pipeline.step(&mut [&mut generation]).expect("it steps");
            }
            let bytes = pipeline.save(&generation).map_or(0, |saved| saved.len());
            let what = format!("save {images} × 64×64, {remembers} remembered");
            time(&what, || pipeline.save(&generation));
            println!("{:44} {:9} KiB", "  of", bytes >> 10);
        }
    }
}

fn parts(tokenizer: &Tokenizer) {
    let prompt = "a cute magical flying dog, fantasy art drawn by disney concept artists, ".repeat(4);
    time("tokenise 288 characters", || tokenizer.encode(&prompt));
    time("noise for 64×64 latents", || BatchNoise::new(NoiseSource::Cpu, [1]).randn((4, 64, 64)));
    let noise = BatchNoise::new(NoiseSource::Cpu, [1]).randn((3, 512, 512)).mapv(|value| value * 0.3);
    let image = RgbImage::from_tensor(noise.index_axis(ndarray::Axis(0), 0)).expect("three channels");
    let small = RgbImage { width: 128, height: 128, pixels: image.pixels[..128 * 128 * 3].to_vec() };
    time("PNG of 512×512, pure noise", || encode_png(&image, &[]));
    time("enlarge 128×128 to 512×512", || small.resize(ImageSize { width: 512, height: 512 }));
}

/// One step of each scheduler on latents of 4×64×64.
fn scheduler_steps() {
    for kind in SchedulerKind::ALL {
        let mut noise = BatchNoise::new(NoiseSource::Cpu, [1]);
        let noise_pred: Array4<f32> = noise.randn((4, 64, 64));
        let mut scheduler = build_scheduler(kind, &SchedulerConfig::default(), 50, Sampling::default())
            .expect("50 steps can be scheduled");
        let mut sample = noise.randn((4, 64, 64));
        let calls = scheduler.timesteps().len();
        let mut input = sample.clone();
        let started = Instant::now();
        for call in 0..calls {
            scheduler.scale_model_input(&sample, call, input.view_mut()).expect("a call of the schedule");
            scheduler.step(&noise_pred, call, &mut sample, &mut noise).expect("a call of the schedule");
        }
        black_box(&sample);
        say(&format!("{kind} step, 4×64×64"), started.elapsed() / u32::try_from(calls).unwrap_or(1));
    }
}

/// The median of 21 calls.
fn time<T>(what: &str, mut call: impl FnMut() -> T) {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let started = Instant::now();
            black_box(call());
            started.elapsed()
        })
        .collect();
    times.sort();
    say(what, times[10]);
}

fn say(what: &str, time: Duration) {
    println!("{what:44} {:9.3} ms", time.as_secs_f64() * 1000.0);
}
