//! On what the figures were measured.

use std::{fmt, fs};

use serde::Serialize;

use super::subject::Subject;
use crate::runtime::{Device, Driver, Origin, driver_version, machine_memory};
use crate::size_text::size_text;

#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub stablehand: &'static str,
    pub model: String,
    /// cpu, or cuda:N.
    pub device: String,
    pub cpu: String,
    pub logical_cores: usize,
    /// Threads that work on one operator.
    pub threads: usize,
    /// Whose convolutions the CPU draws with, and on how many threads.
    pub means: Option<String>,
    /// Bytes.
    pub memory: Option<u64>,
    pub system: String,
    pub onnxruntime: String,
    /// As the driver names it.
    pub card: Option<String>,
    pub compute_capability: Option<String>,
    /// Bytes.
    pub card_memory: Option<u64>,
    pub driver: Option<String>,
}

impl Machine {
    pub fn for_subject(subject: &Subject) -> Self {
        let runtime = &subject.runtime;
        let version = runtime.library().version().unwrap_or_else(|| "of an unknown version".to_owned());
        let from = match runtime.library().origin {
            Origin::Named => "named by STABLEHAND_ORT_DYLIB",
            Origin::Installed => "installed",
            Origin::Embedded => "inside stablehand",
        };
        let (index, memory_gib) = match runtime.device() {
            Device::Cpu => (None, None),
            Device::Cuda { index, memory_gib } => (Some(*index), *memory_gib),
        };
        let card = match Driver::get() {
            Driver::Works { cards, .. } => index.and_then(|index| cards.get(index as usize)),
            _ => None,
        };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            stablehand: env!("CARGO_PKG_VERSION"),
            model: subject.name.clone(),
            device: runtime.device().name(),
            cpu: cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            logical_cores: std::thread::available_parallelism().map_or(1, usize::from),
            threads: runtime.threads(),
            means: subject.pipeline.means(),
            memory: machine_memory(),
            system: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
            onnxruntime: format!("{version}, {from}"),
            card: card.map(|card| card.name.clone()),
            compute_capability: card.map(|card| {
                let (major, minor) = card.compute_capability;
                format!("{major}.{minor}")
            }),
            card_memory: card.map(|card| card.memory).or(memory_gib.map(|gib| u64::from(gib) << 30)),
            driver: index.and(driver_version()),
        }
    }
}

fn cpu_model() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "stablehand {} draws with {} on {}", self.stablehand, self.model, self.device)?;
        if self.device != "cpu" {
            let card = self.card.as_deref().unwrap_or("a card that the driver does not name");
            let capability = self.compute_capability.as_deref().map(|c| format!(", compute capability {c}"));
            let memory = self.card_memory.map(|bytes| format!(", {}", size_text(bytes)));
            writeln!(f, "  {card}{}{}", capability.unwrap_or_default(), memory.unwrap_or_default())?;
            writeln!(f, "  driver {}", self.driver.as_deref().unwrap_or("of an unknown version"))?;
        }
        let memory = self.memory.map(|bytes| format!(", {}", size_text(bytes))).unwrap_or_default();
        writeln!(
            f,
            "  {}, {} logical cores, {} threads{memory}",
            self.cpu, self.logical_cores, self.threads
        )?;
        if let Some(means) = &self.means {
            writeln!(f, "  {means}")?;
        }
        writeln!(f, "  {}, ONNX Runtime {}", self.system, self.onnxruntime)
    }
}
