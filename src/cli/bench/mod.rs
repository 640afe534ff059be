//! `stablehand bench`: what this machine draws, measured, as a table and as JSON.
//!
//! A measurement is a function with a name that answers rows; [`PLAN`] and [`FULL`] list them. One that fails is a row that
//! says why, and the next one begins.

mod agreement;
mod machine;
mod row;
mod speed;
mod subject;
mod ways;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use indicatif::ProgressBar;
use serde::Serialize;

use super::Failure;
use super::open_model::open_model;
use super::print::print;
use super::runtime::use_installed_runtimes;
use crate::config::{CpuArgs, ModelsDirArgs};
use crate::domain::ImageSize;
use crate::runtime::DeviceChoice;
use machine::Machine;
use row::{Row, table};
use subject::Subject;

pub(super) const ABOUT: &str = "Measure what this machine draws: loading, the first picture, a step by rows (a guided \
picture has two), decoding, pictures a minute, memory, and how far the device's pictures are from the CPU's. With a card, \
open an issue with the output of `stablehand bench --full --json`: it tells us how stablehand does there.";

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// auto, cpu or cuda[:N]
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t, hide_env_values = true)]
    device: DeviceChoice,
    /// A Stable Diffusion v1 model: a checkpoint (.safetensors, .ckpt), a folder of diffusers' or ONNX files, or the
    /// name of a pulled model [default: the built-in tiny-sd]
    #[arg(long, env = "STABLEHAND_MODEL", value_name = "MODEL", hide_env_values = true)]
    model: Option<PathBuf>,
    /// Picture sizes, separated by commas [default: the model's own]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_delimiter = ',', value_parser = size)]
    sizes: Vec<ImageSize>,
    /// Measure more: other sizes, shapes in turn, long prompts, repeated seeds, 50 steps from end to end
    #[arg(long)]
    full: bool,
    /// Measure only these, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = names(), conflicts_with = "full")]
    only: Vec<String>,
    /// Rows of a step, separated by commas: a guided picture has two [default: 1,2,4,8,16]
    #[arg(long, value_name = "ROWS", value_delimiter = ',', value_parser = clap::value_parser!(u8).range(1..=64))]
    rows: Vec<u8>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

/// A measurement. Its name is shown while it runs.
type Measurement = (&'static str, fn(&mut Subject) -> Result<Vec<Row>, Failure>);

/// What is always measured, in this order. The first picture comes first: nothing is warm yet.
const PLAN: [Measurement; 6] = [
    ("first picture", speed::first_picture),
    ("prompt", speed::prompt),
    ("decode", speed::decode),
    ("step", speed::steps),
    ("pictures", speed::pictures),
    ("against the CPU", agreement::with_cpu),
];

/// What `--full` measures besides.
const FULL: [Measurement; 6] = [
    ("shapes in turn", speed::shapes_in_turn),
    ("50 steps", speed::fifty_steps),
    ("seed again", agreement::repeated),
    ("seed in a batch", agreement::in_a_batch),
    ("other inputs", agreement::other_inputs_with_cpu),
    ("ways on a card", ways::on_card),
];

/// What changes how calls are filled.
const LAST: [Measurement; 1] = [("batch", speed::batch)];

/// Every measurement, in the order in which they run.
fn all() -> impl Iterator<Item = &'static Measurement> {
    PLAN.iter().chain(&FULL).chain(&LAST)
}

/// What `--only` takes.
fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(all().map(|(name, _)| *name))
}

pub(super) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let model = open_model(args.model.as_deref(), None, || args.folders.models_dir())?;
    use_installed_runtimes(&args.folders, args.device);
    let progress = Progress::new();
    progress.say("load");
    let (mut subject, mut rows) = Subject::load(model, args.device, args.cpu.settings(), &args.sizes)?;
    if let Some(note) = subject.runtime.note() {
        progress.note(note);
    }
    if !args.rows.is_empty() {
        subject.rows = args.rows.iter().map(|rows| usize::from(*rows)).collect();
    }
    let is_wanted = |name: &str| match args.only.as_slice() {
        [] => args.full || !FULL.iter().any(|(full, _)| *full == name),
        only => only.iter().any(|wanted| wanted == name),
    };
    for (name, measure) in all().filter(|(name, _)| is_wanted(name)) {
        progress.say(name);
        rows.extend(measure(&mut subject).unwrap_or_else(|failure| vec![Row::failed(name, &failure)]));
    }
    rows.extend(speed::memory(&subject));
    drop(progress);

    let report = Report { machine: Machine::for_subject(&subject), rows };
    match args.json {
        true => {
            let text = serde_json::to_string_pretty(&report)
                .map_err(|error| Failure::Other(format!("cannot write the report: {error}")))?;
            print(&format!("{text}\n"))
        }
        false => print(&format!("{}\n{}\n{}", report.machine, table(&report.rows), invitation(&subject))),
    }
}

#[derive(Debug, Serialize)]
struct Report {
    machine: Machine,
    rows: Vec<Row>,
}

/// Where the figures are wanted.
fn invitation(subject: &Subject) -> &'static str {
    match subject.runtime.device().is_cpu() {
        true => "",
        false => {
            "Please open an issue with the output of `stablehand bench --full --json`:\n\
             it tells us how stablehand does on this card.\n"
        }
    }
}

/// 512x512, or 512×512.
fn size(text: &str) -> Result<ImageSize, String> {
    let wanted = || "it should read like 512x512, from 64 to 2048 pixels a side".to_owned();
    let (width, height) = text.split_once(['x', '×']).ok_or_else(wanted)?;
    let side = |text: &str| text.trim().parse().ok().filter(|side| (64..=2048).contains(side));
    Ok(ImageSize { width: side(width).ok_or_else(wanted)?, height: side(height).ok_or_else(wanted)? })
}

/// Which measurement runs, on standard error: a line that changes at a terminal, lines elsewhere.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new() -> Self {
        Self(io::stderr().is_terminal().then(|| {
            let spinner = ProgressBar::new_spinner();
            spinner.enable_steady_tick(std::time::Duration::from_millis(100));
            spinner
        }))
    }

    fn say(&self, measurement: &str) {
        match &self.0 {
            Some(spinner) => spinner.set_message(format!("measuring: {measurement}")),
            None => eprintln!("measuring: {measurement}"),
        }
    }

    fn note(&self, sentence: &str) {
        match &self.0 {
            Some(spinner) => spinner.suspend(|| eprintln!("{sentence}")),
            None => eprintln!("{sentence}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!(size("512x768"), Ok(ImageSize { width: 512, height: 768 }));
        assert_eq!(size("64×64"), Ok(ImageSize { width: 64, height: 64 }));
        for text in ["512", "512x", "x512", "32x64", "4096x64", "ax64"] {
            assert!(size(text).unwrap_err().contains("512x512"), "{text}");
        }
    }
}
