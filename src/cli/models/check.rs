//! `stablehand models check`: whether a model draws, then what it holds, what will work with it and what will not.

mod report;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use self::report::{Report, WIDTH, list};
use super::Failure;
use crate::cli::open_model::open_model;
use crate::cli::paragraph::wrap_within;
use crate::cli::print::print;
use crate::cli::runtime::use_installed_runtimes;
use crate::config::{CpuArgs, ModelsDirArgs};
use crate::diffusion::{MemoryNeeds, Model, Pipeline};
use crate::domain::{GenerationInput, ImageSize, Sampling};
use crate::runtime::{CpuSettings, DeviceChoice, Runtime};
use crate::size_text::size_text;

pub(super) const ABOUT: &str = "Say whether a model can draw, by drawing a small picture as a test, and show what it \
contains and what works with it. The first line is the verdict. The exit code is 0 if the model can draw, and 1 if not.";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// A checkpoint (.safetensors, .ckpt), a folder (diffusers or ONNX), or the name of a pulled model
    /// [default: the built-in tiny-sd]
    #[arg(value_name = "MODEL", env = "STABLEHAND_MODEL", hide_env_values = true)]
    model: Option<PathBuf>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t, hide_env_values = true)]
    device: DeviceChoice,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

/// How many weights that are not finite are listed.
const MOST_BROKEN: usize = 10;
const NOT_FINITE: &str = "infinite or not a number";

/// Prints what was found. Whether the model draws.
pub(super) fn check(args: &CheckArgs) -> Result<bool, Failure> {
    let model = match open_model(args.model.as_deref(), None, || args.folders.models_dir()) {
        Ok(model) => model,
        Err(failure) => {
            let name = args.model.as_deref().and_then(Path::file_name).unwrap_or_default();
            print(&verdict(&name.to_string_lossy(), &Err(failure.to_string())))?;
            return Ok(false);
        }
    };
    use_installed_runtimes(&args.folders, args.device);
    let broken = model.broken_weights();
    let mut findings = String::new();
    let drawn =
        draw(&model, args.device, args.cpu.settings(), &mut findings).map_err(|failure| failure.to_string());
    let drawn = match (drawn, &broken) {
        (Err(reason), Ok(broken)) if !broken.is_empty() && reason.contains(NOT_FINITE) => Err(format!(
            "{} of its tensors hold values that are {NOT_FINITE}: use another copy of the model",
            broken.len()
        )),
        (drawn, _) => drawn,
    };
    let unread = &model.unread().not_needed;
    list(&mut findings, "Not needed", unread.iter().map(|sentence| (String::new(), sentence.clone())));
    // Weights that cannot be read are the verdict already.
    list(&mut findings, "Not finite", lines_about_broken(&broken.unwrap_or_default()));
    print(&(verdict(model.name(), &drawn) + &findings))?;
    Ok(drawn.is_ok())
}

/// One sentence: that the model draws and how fast, or why not.
fn verdict(name: &str, drawn: &Result<String, String>) -> String {
    let mut text = String::new();
    let sentence = match drawn {
        Ok(how) => format!("{name} draws: {how}."),
        Err(reason) => format!("{name} does not draw: {reason}."),
    };
    wrap_within(&mut text, &sentence, 0, WIDTH);
    text
}

fn lines_about_broken(broken: &[(String, usize)]) -> Vec<(String, String)> {
    let mut lines: Vec<_> = broken
        .iter()
        .take(MOST_BROKEN)
        .map(|(tensor, count)| (String::new(), format!("{tensor}: {count} values are {NOT_FINITE}")))
        .collect();
    if let Some(others) = broken.len().checked_sub(MOST_BROKEN).filter(|others| *others > 0) {
        lines.push((String::new(), format!("and {others} other tensors")));
    }
    lines
}

/// Draws a picture, and writes what the model holds to `findings` as far as it comes. Returns the end of the sentence that
/// the model draws.
fn draw(
    model: &Model,
    device: DeviceChoice,
    cpu: CpuSettings,
    findings: &mut String,
) -> Result<String, Failure> {
    let runtime = Runtime::load(device)?.with_cpu(cpu);
    let sentences = |sentences: &[String]| -> Vec<(String, String)> {
        sentences.iter().map(|sentence| (String::new(), sentence.clone())).collect()
    };
    let assumed = &model.description().assumptions;
    let loaded = match model.load_graphs(&runtime) {
        Ok(loaded) => loaded,
        Err(error) => {
            list(findings, "Warnings", sentences(assumed));
            return Err(error.into());
        }
    };
    let needs = model.memory_needs(runtime.device())?;
    let checker_bytes = needs.checker();
    *findings = format!("\n{}", Report { model, parts: &loaded.parts(), checker_bytes });
    let mut pipeline = match loaded.into_pipeline() {
        Ok(pipeline) => pipeline,
        Err(error) => {
            list(findings, "Warnings", sentences(assumed));
            return Err(error.into());
        }
    };
    list(findings, "Memory", lines_about_memory(pipeline.memory_needs(), &pipeline));
    list(findings, "Warnings", sentences(&pipeline.warnings()));
    let side = side(model);
    let step = time_of_a_step(&mut pipeline, side)?;
    let device = runtime.device();
    Ok(format!("a step at {side}×{side} px took {:.2} s on the {device}", step.as_secs_f64()))
}

/// What it takes of the device's memory, and how it computes there. Estimates.
fn lines_about_memory(needs: &MemoryNeeds, pipeline: &Pipeline) -> Vec<(String, String)> {
    /// Of a guided picture.
    const ROWS: u64 = 2;
    let side = needs.usual_size().width;
    let picture = needs.usual(ROWS) - needs.weights();
    let mut drawing = format!("{} more at most while it draws {side}×{side} px", size_text(picture));
    if pipeline.has_own_convolutions() {
        let _ = write!(drawing, ", {} of them for its convolutions", size_text(needs.usual_tiles(ROWS)));
    }
    let weights = format!("{} on {}", size_text(needs.weights()), pipeline.device().name());
    let lines = [("weights", Some(weights)), ("drawing", Some(drawing)), ("drawn with", pipeline.means())];
    lines.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The smallest side that the model draws.
fn side(model: &Model) -> u32 {
    64_u32.next_multiple_of(model.rules().grid)
}

/// Draws a small picture in two steps, the whole way to its PNG. Returns the time of the second step: the first one
/// warms the sessions up.
fn time_of_a_step(pipeline: &mut Pipeline, side: u32) -> Result<Duration, Failure> {
    let rules = pipeline.model().rules();
    let input = GenerationInput {
        size: ImageSize { width: side, height: side },
        num_inference_steps: 2,
        scheduler: rules.scheduler,
        sampling: Sampling { spacing: rules.spacing, ..Sampling::default() },
        // The safety checker runs as well, if there is one.
        nsfw: false,
        ..GenerationInput::new("a picture")
    };
    let mut generation = pipeline.begin(&input, 0)?;
    let mut last = Duration::ZERO;
    while !generation.is_done() {
        let started = Instant::now();
        pipeline.step(&mut [&mut generation])?;
        last = started.elapsed();
    }
    pipeline.finish(&generation)?;
    Ok(last)
}
