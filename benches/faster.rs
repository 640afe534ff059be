//! What faster pictures cost: for each way, the time, the memory and the distance to the full picture.
//!
//!     cargo bench --bench faster
//!     STABLEHAND_SD15=FOLDER cargo bench --bench faster     # what tests/golden/make_sd15.py wrote
//!
//! With the built-in model, each row draws 24 prompts with fixed seeds. With a full-size one it draws one picture, of random
//! weights, so that no distance means anything. Each row runs in a process of its own, so that its memory is its own; the rows
//! take turns, and the time is the median. `STABLEHAND_FEW_STEPS=FILE` names an LCM LoRA for one more row. `ROUNDS` and `STEPS`
//! change how often the rows take turns, and the steps.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Model, Pipeline};
use stablehand::domain::GenerationInput;
use stablehand::runtime::{DeviceChoice, Runtime};

/// What the built-in model knows, so that the pictures are worth comparing.
const PROMPTS: [&str; 24] = [
    "a red apple",
    "a fox",
    "a tree on a blue background",
    "a yellow star",
    "a house",
    "a green apple on a pink background",
    "a rainbow",
    "a panda",
    "a red heart on a white background",
    "an owl",
    "a sunflower",
    "a rocket on a purple background",
    "a cat",
    "a strawberry",
    "a whale on a yellow background",
    "a guitar",
    "a snowman on a red background",
    "a frog",
    "a pizza",
    "a bicycle",
    "a penguin on an orange background",
    "a mushroom",
    "a lion",
    "a crown on a green background",
];
/// Names of the variables by which the parent tells a child its row, and where to write its pixels.
const ROW: &str = "FASTER_ROW";
const PIXELS: &str = "FASTER_PIXELS";
const FEW_STEPS: &str = "STABLEHAND_FEW_STEPS";
const SD15: &str = "STABLEHAND_SD15";
/// SSIM looks at squares of so many pixels a side.
const WINDOW: usize = 8;

/// A way to draw: what it adds to a request's `input`.
struct Row {
    name: &'static str,
    adds: Value,
}

/// What one run of a row gave.
struct Run {
    seconds: Vec<f64>,
    resident: u64,
    peak: u64,
}

fn rows() -> Vec<Row> {
    let row = |name, adds| Row { name, adds };
    let mut rows = vec![
        row("full", json!({})),
        row("`cache_interval: 2`", json!({"cache_interval": 2})),
        row("`cache_interval: 3`", json!({"cache_interval": 3})),
        row("`cache_interval: 5`", json!({"cache_interval": 5})),
        row("`vae: tiny`", json!({"vae": "tiny"})),
        row("`precision: int8`", json!({"precision": "int8"})),
        row("`cache_interval: 3`, `vae: tiny`", json!({"cache_interval": 3, "vae": "tiny"})),
        row(
            "`cache_interval: 3`, `vae: tiny`, `precision: int8`",
            json!({"cache_interval": 3, "vae": "tiny", "precision": "int8"}),
        ),
    ];
    if let Some(lora) = few_steps() {
        let name = lora.file_stem().unwrap_or_default().to_string_lossy();
        let adds = json!({"lora": name, "scheduler": "LCM", "num_inference_steps": 4, "guidance_scale": 1});
        rows.push(row("an LCM LoRA, 4 steps", adds));
    }
    rows
}

fn few_steps() -> Option<PathBuf> {
    env::var_os(FEW_STEPS).map(PathBuf::from)
}

fn sd15() -> Option<PathBuf> {
    env::var_os(SD15).map(PathBuf::from)
}

fn number(variable: &str, usual: usize) -> usize {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn main() {
    match env::var(ROW).ok().and_then(|row| row.parse::<usize>().ok()) {
        Some(row) => child(&rows()[row]),
        None => parent(),
    }
}

/// Runs the rows in turns and prints the table.
fn parent() {
    let (rounds, steps) = (number("ROUNDS", if sd15().is_some() { 1 } else { 3 }), steps());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut runs: Vec<Result<Vec<Run>, String>> = rows().iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds {
        for (index, runs) in runs.iter_mut().enumerate() {
            if let Ok(all) = runs {
                match run(index, &folder.path().join(index.to_string())) {
                    Ok(run) => all.push(run),
                    Err(error) => *runs = Err(error),
                }
            }
        }
    }
    let what = match sd15() {
        Some(folder) => format!("{} (512×512)", folder.display()),
        None => format!("the built-in model (128×128), {} prompts", PROMPTS.len()),
    };
    println!("{what}, {steps} steps, {rounds} rounds\n");
    println!(
        "| way | seconds a picture | of the full time | resident | peak | PSNR (worst) | SSIM (worst) |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let full = runs.first().and_then(|runs| runs.as_ref().ok()).map_or(f64::NAN, |runs| seconds(runs));
    for (index, (row, runs)) in rows().iter().zip(&runs).enumerate() {
        match runs {
            Err(error) => println!("| {} | {error} | | | | | |", row.name),
            Ok(runs) => {
                let (time, memory) =
                    (seconds(runs), runs.last().map_or((0, 0), |run| (run.resident, run.peak)));
                let distance = match index {
                    0 => "| |".to_owned(),
                    _ if sd15().is_some() => "random weights | |".to_owned(),
                    _ => distance(&folder.path().join("0"), &folder.path().join(index.to_string())),
                };
                let [resident, peak] =
                    [memory.0, memory.1].map(|kib| format!("{} MB", kib * 1024 / 1_000_000));
                println!(
                    "| {} | {time:.3} | {:.2} | {resident} | {peak} | {distance}",
                    row.name,
                    time / full
                );
            }
        }
    }
}

fn steps() -> usize {
    number("STEPS", if sd15().is_some() { 6 } else { 20 })
}

/// The median of all pictures.
fn seconds(runs: &[Run]) -> f64 {
    let mut all: Vec<f64> = runs.iter().flat_map(|run| run.seconds.iter().copied()).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a row in a process of its own.
fn run(row: usize, pixels: &Path) -> Result<Run, String> {
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program).env(ROW, row.to_string()).env(PIXELS, pixels).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last: Value =
        text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let seconds = last["seconds"].as_array().map(|all| all.iter().filter_map(Value::as_f64).collect());
    match (seconds, last["error"].as_str()) {
        (Some(seconds), None) => Ok(Run {
            seconds,
            resident: last["resident"].as_u64().unwrap_or(0),
            peak: last["peak"].as_u64().unwrap_or(0),
        }),
        (_, Some(error)) => Err(error.to_owned()),
        (None, None) => {
            Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it ended").to_owned())
        }
    }
}

/// Draws a row, and prints a line of JSON.
fn child(row: &Row) {
    let line = match draw(row) {
        Ok((seconds, resident, peak)) => json!({"seconds": seconds, "resident": resident, "peak": peak}),
        Err(error) => json!({"error": error}),
    };
    println!("{line}");
}

fn draw(row: &Row) -> Result<(Vec<f64>, u64, u64), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = Runtime::load(DeviceChoice::Cpu).map_err(|error| text(&error))?;
    let path = sd15().map(|folder| folder.join("ldm.safetensors"));
    let nowhere = || PathBuf::from("/nowhere");
    let add_ons = AddOnFolders {
        loras: few_steps().unwrap_or_else(nowhere),
        controlnets: nowhere(),
        embeddings: nowhere(),
        wildcards: nowhere(),
        upscalers: nowhere(),
        tiny_vaes: nowhere(),
        lora_memory: 8 << 30,
        look_every: Duration::from_mins(10),
    };
    let model = Model::open(path.as_deref(), Some(add_ons)).map_err(|error| text(&error))?;
    let inputs = inputs(row, &model)?;
    let mut pipeline = model.load(&runtime).map_err(|error| text(&error))?;
    if sd15().is_none() {
        // The first picture is for the memory.
        picture(&mut pipeline, &inputs[0])?;
    }
    let (mut seconds, mut pixels) = (Vec::new(), Vec::new());
    for input in &inputs {
        let started = Instant::now();
        pixels.extend(picture(&mut pipeline, input)?);
        seconds.push(started.elapsed().as_secs_f64());
    }
    if let Some(path) = env::var_os(PIXELS) {
        fs::write(path, pixels).map_err(|error| text(&error))?;
    }
    Ok((seconds, kib_of("VmRSS:"), kib_of("VmHWM:")))
}

fn inputs(row: &Row, model: &Model) -> Result<Vec<GenerationInput>, String> {
    let (side, prompts) = match sd15() {
        Some(_) => (512, &PROMPTS[..1]),
        None => (128, &PROMPTS[..]),
    };
    let inputs = prompts.iter().zip(1_u64..).map(|(prompt, seed)| {
        let mut input = json!({
            "prompt": prompt, "seed": seed, "width": side, "height": side, "num_inference_steps": steps(),
            "guidance_scale": 5,
        });
        if let (Some(fields), Some(adds)) = (input.as_object_mut(), row.adds.as_object()) {
            fields.extend(adds.clone());
        }
        GenerationInput::parse(&input, model.rules()).map_err(|violations| violations.to_string())
    });
    inputs.collect()
}

fn picture(pipeline: &mut Pipeline, input: &GenerationInput) -> Result<Vec<u8>, String> {
    let drawn = pipeline.draw(input, input.seed.unwrap_or(0)).map_err(|error| error.to_string())?;
    Ok(drawn.into_iter().flat_map(|picture| picture.image.pixels).collect())
}

/// A figure of this process's memory, in KiB. 0 where the system does not tell.
fn kib_of(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Cells of the table: PSNR and SSIM of the pictures, as their mean and the worst one.
fn distance(full: &Path, other: &Path) -> String {
    let (Ok(full), Ok(other)) = (fs::read(full), fs::read(other)) else {
        return "no pictures | |".to_owned();
    };
    let size = full.len() / PROMPTS.len();
    let pairs = || full.chunks(size).zip(other.chunks(size));
    let psnr: Vec<f64> = pairs().map(|(a, b)| psnr(a, b)).collect();
    let ssim: Vec<f64> = pairs().map(|(a, b)| ssim(&luma(a), &luma(b))).collect();
    let mean = |all: &[f64]| all.iter().sum::<f64>() / count(all.len());
    let worst = |all: &[f64]| all.iter().copied().fold(f64::INFINITY, f64::min);
    format!("{:.1} dB ({:.1}) | {:.3} ({:.3}) |", mean(&psnr), worst(&psnr), mean(&ssim), worst(&ssim))
}

#[expect(clippy::cast_precision_loss, reason = "counts of pixels")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Of equal pictures, 99 dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mean = squares / count(a.len());
    if mean > 0.0 { 10.0 * (255.0 * 255.0 / mean).log10() } else { 99.0 }
}

fn luma(pixels: &[u8]) -> Vec<f64> {
    let of = |rgb: &[u8]| 0.299 * f64::from(rgb[0]) + 0.587 * f64::from(rgb[1]) + 0.114 * f64::from(rgb[2]);
    pixels.chunks_exact(3).map(of).collect()
}

/// The structural similarity of square pictures (Wang et al. 2004), the mean over squares that overlap by half.
fn ssim(a: &[f64], b: &[f64]) -> f64 {
    const C1: f64 = (0.01 * 255.0) * (0.01 * 255.0);
    const C2: f64 = (0.03 * 255.0) * (0.03 * 255.0);
    let side = a.len().isqrt();
    let places = || (0..=side - WINDOW).step_by(WINDOW / 2);
    let n = count(WINDOW * WINDOW);
    let (mut sum, mut squares) = (0.0, 0.0);
    for (top, left) in places().flat_map(|top| places().map(move |left| (top, left))) {
        let at =
            |picture: &[f64], index: usize| picture[(top + index / WINDOW) * side + left + index % WINDOW];
        let pairs = || (0..WINDOW * WINDOW).map(|index| (at(a, index), at(b, index)));
        let (mean_a, mean_b) = (pairs().map(|p| p.0).sum::<f64>() / n, pairs().map(|p| p.1).sum::<f64>() / n);
        let var_a = pairs().map(|p| (p.0 - mean_a).powi(2)).sum::<f64>() / n;
        let var_b = pairs().map(|p| (p.1 - mean_b).powi(2)).sum::<f64>() / n;
        let both = pairs().map(|p| (p.0 - mean_a) * (p.1 - mean_b)).sum::<f64>() / n;
        sum += (2.0 * mean_a * mean_b + C1) * (2.0 * both + C2)
            / ((mean_a.powi(2) + mean_b.powi(2) + C1) * (var_a + var_b + C2));
        squares += 1.0;
    }
    sum / squares
}
