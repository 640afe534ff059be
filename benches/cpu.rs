//! What a model costs on a CPU: loading, the first step and those behind it, the decoder, memory; then the steps of several
//! workers at the same time. Settings come from the environment:
//!
//!     MODEL=sd15.safetensors SIDE=512 cargo bench --bench cpu
//!     SPEEDS=fast,memory THREADS=2 WORKERS=1,2 SECONDS=20 cargo bench --bench cpu
//!
//! Without `MODEL`, it is the built-in one. `WORKERS` and `SECONDS` measure workers; without them, it is one picture for each
//! of `SPEEDS`. Each figure needs a process of its own where memory is of interest: give one of `SPEEDS` then.

#![expect(clippy::expect_used, reason = "a measurement that fails should say where")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use stablehand::diffusion::{Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize};
use stablehand::runtime::{CpuSettings, DeviceChoice, Runtime};

fn main() {
    let model = env::var_os("MODEL").map(PathBuf::from);
    let model = Model::open(model.as_deref(), None).expect("the model opens");
    let side = number("SIDE").unwrap_or_else(|| model.description().native_side);
    let threads = number("THREADS").and_then(|threads| NonZero::new(threads as usize));
    let speeds = env::var("SPEEDS").unwrap_or_else(|_| "auto".to_owned());
    for speed in speeds.split(',') {
        let speed = speed.parse().expect("SPEEDS are auto, fast or memory");
        let cpu = CpuSettings { speed, threads };
        match env::var("WORKERS") {
            Err(_) => one_picture(&model, side, cpu),
            Ok(workers) => {
                for workers in workers.split(',') {
                    at_the_same_time(&model, side, cpu, workers.parse().expect("WORKERS are numbers"));
                }
            }
        }
    }
}

fn number(name: &str) -> Option<u32> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn load(model: &Model, cpu: CpuSettings) -> Pipeline {
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads").with_cpu(cpu);
    model.load(&runtime).expect("the model loads")
}

fn input(side: u32, steps: u32) -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: side, height: side },
        num_inference_steps: steps,
        ..GenerationInput::new("a red fox in the snow")
    }
}

/// Loads the model, and draws a picture of some steps.
fn one_picture(model: &Model, side: u32, cpu: CpuSettings) {
    let started = Instant::now();
    let mut pipeline = load(model, cpu);
    println!(
        "{}, {side}×{side}, --cpu-speed {}: {}",
        model.name(),
        cpu.speed,
        pipeline.means().unwrap_or_default()
    );
    report("load", started.elapsed());
    let input = input(side, number("STEPS").unwrap_or(3));
    for picture in 1..=number("PICTURES").unwrap_or(1) {
        let started = Instant::now();
        let mut generation = pipeline.begin(&input, 1).expect("it begins");
        report(&format!("picture {picture}: prompt"), started.elapsed());
        while !generation.is_done() {
            let started = Instant::now();
            pipeline.step(&mut [&mut generation]).expect("it steps");
            report(&format!("picture {picture}: step {}", generation.progress().0), started.elapsed());
        }
        let started = Instant::now();
        // Random weights may give values that are no picture.
        let finished = pipeline.finish(&generation).map(drop);
        report(&format!("picture {picture}: decode"), started.elapsed());
        if let Err(error) = finished {
            println!("  {error}");
        }
    }
}

/// The steps a second of so many workers, each with an engine of its own.
fn at_the_same_time(model: &Model, side: u32, cpu: CpuSettings, workers: u32) {
    let seconds = Duration::from_secs(number("SECONDS").unwrap_or(10).into());
    let settings = if number("THREADS").is_some() { cpu } else { cpu.for_one_of(workers) };
    let (barrier, steps) = (Barrier::new(workers as usize), AtomicU32::new(0));
    let started: Vec<Duration> = thread::scope(|scope| {
        let work = || {
            let mut pipeline = load(model, settings);
            let input = input(side, 500);
            let mut generation = pipeline.begin(&input, 1).expect("it begins");
            pipeline.step(&mut [&mut generation]).expect("it steps");
            barrier.wait();
            let started = Instant::now();
            while started.elapsed() < seconds {
                pipeline.step(&mut [&mut generation]).expect("it steps");
                steps.fetch_add(1, Ordering::Relaxed);
                if generation.is_done() {
                    generation = pipeline.begin(&input, 1).expect("it begins");
                }
            }
            started.elapsed()
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("it works")).collect()
    });
    let took = started.iter().sum::<Duration>().as_secs_f64() / f64::from(workers);
    let rate = f64::from(steps.load(Ordering::Relaxed)) / took;
    println!(
        "{}, {side}×{side}, --cpu-speed {}: {workers} workers, {rate:.3} steps a second",
        model.name(),
        cpu.speed
    );
}

fn report(what: &str, took: Duration) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let gigabytes = |name| field(name).unwrap_or(0) as f64 * 1024.0 / 1e9;
    println!(
        "  {what:<22} {:>7.3} s   resident {:.2} GB, at most {:.2} GB",
        took.as_secs_f64(),
        gigabytes("VmRSS:"),
        gigabytes("VmHWM:")
    );
}
