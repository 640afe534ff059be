//! `stablehand doctor`: checks whether the server would start with these settings, and on which device it would draw.
//!
//! Each check is a line, with a remedy if it failed. Nothing is changed.

mod card;
mod engine;
mod listener;
mod places;
mod report;

use clap::Args;

use super::Failure;
use super::print::print;
use crate::config::{Config, ServeArgs};
use crate::runtime::{DeviceChoice, RuntimesDir};
use report::{Check, Report, Verdict};

pub(super) const ABOUT: &str = "Say what the server would find on this machine: driver, card, memory, runtime, libraries, \
model, data folder and port, with a remedy for what is wrong, and which device it would take. It takes the settings of \
`stablehand serve` and changes nothing. The exit code is 0 if the server would start and draw.";

#[derive(Args)]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Prints the report, and returns whether the server would work. `settings` come from the flags, the environment and the
/// configuration file.
pub(super) fn doctor(json: bool, settings: ServeArgs) -> Result<bool, Failure> {
    let report = examine(&settings.into_config()?);
    match json {
        true => {
            let text = serde_json::to_string_pretty(&report)
                .map_err(|error| Failure::Other(format!("cannot write the report: {error}")))?;
            print(&format!("{text}\n"))?;
        }
        false => print(&report)?,
    }
    Ok(report.works)
}

impl DoctorArgs {
    pub(super) fn json(&self) -> bool {
        self.json
    }
}

fn examine(config: &Config) -> Report {
    let runtimes = RuntimesDir::in_data_dir(&config.data_dir);
    // Each device once, in the order of the endpoints.
    let mut choices: Vec<DeviceChoice> = Vec::new();
    for endpoint in &config.endpoints {
        if !choices.contains(&endpoint.device) {
            choices.push(endpoint.device);
        }
    }
    let wants_card = choices.iter().any(|choice| matches!(choice, DeviceChoice::Cuda(_)));
    let mut checks = vec![Check::ok("stablehand", format!("{} on {}", env!("CARGO_PKG_VERSION"), machine()))];
    checks.extend(card::checks(wants_card));
    let engine = engine::examine(config, &runtimes, &choices);
    checks.extend(engine.checks);
    checks.extend(places::checks(config));
    let works = checks.iter().all(|check| check.verdict != Verdict::Fail);
    Report { version: env!("CARGO_PKG_VERSION"), checks, devices: engine.devices, works }
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cores == 1 { "1 core".to_owned() } else { format!("{cores} cores") };
    format!("{} {}, {cores}", std::env::consts::OS, std::env::consts::ARCH)
}
