//! Which device the sessions run on, and what is said when the wish cannot be met.

use std::fmt;
use std::str::FromStr;

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProvider, ExecutionProviderDispatch};
use ort::session::Session;

use super::driver::{Driver, has_card_node};
use super::library::{NOT_INSTALLED, Usable, not_served, usable};
use super::packages::serves;
use super::{Attention, Loaded, Origin, RuntimeError};

/// What the user asked for: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where it works, else the CPU.
    #[default]
    Auto,
    Cpu,
    Cuda(u32),
}

/// The device that sessions are made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    Cpu,
    Cuda {
        index: u32,
        /// Of the card, in GiB, where the driver tells.
        memory_gib: Option<u32>,
    },
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unknown = || "it should be auto, cpu, cuda or cuda:N (such as cuda:1)".to_owned();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                index.parse().map(Self::Cuda).map_err(|_| unknown())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl Device {
    pub fn is_cpu(&self) -> bool {
        *self == Self::Cpu
    }

    /// What it is called in settings and metrics: `cpu`, or `cuda:N`.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda { index, .. } => format!("cuda:{index}"),
        }
    }

    /// The status body's `gpu`: the card's memory in GiB, as the hosted service says it.
    pub fn label(&self) -> String {
        match self {
            Self::Cpu => "cpu".to_owned(),
            Self::Cuda { memory_gib: Some(gib), .. } => gib.to_string(),
            Self::Cuda { memory_gib: None, .. } => "cuda".to_owned(),
        }
    }

    /// The execution provider of a session; none on a CPU.
    pub(super) fn execution_provider(
        &self,
        on_card: OnCard,
        fuse_conv_bias: bool,
    ) -> Option<ExecutionProviderDispatch> {
        match self {
            Self::Cpu => None,
            Self::Cuda { index, .. } => Some(cuda(*index, on_card, fuse_conv_bias)),
        }
    }

    /// A card's compute capability, such as (8, 9), where the driver tells.
    pub fn compute_capability(&self) -> Option<(u32, u32)> {
        match self {
            Self::Cpu => None,
            Self::Cuda { index, .. } => match Driver::get() {
                Driver::Works { cards, .. } => cards.get(*index as usize).map(|card| card.compute_capability),
                _ => super::memory::compute_capability(*index),
            },
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("CPU"),
            Self::Cuda { index, memory_gib: Some(gib) } => write!(f, "CUDA device {index} ({gib} GiB)"),
            Self::Cuda { index, memory_gib: None } => write!(f, "CUDA device {index}"),
        }
    }
}

/// Turns a wish into a device: an explicit wish that fails is an error, `auto` falls back and says why.
pub(super) fn settle(
    choice: DeviceChoice,
    loaded: &Loaded,
) -> Result<(Device, Option<String>), RuntimeError> {
    let (index, asked) = match choice {
        DeviceChoice::Cpu => return Ok((Device::Cpu, None)),
        DeviceChoice::Cuda(index) => (index, true),
        DeviceChoice::Auto => (0, false),
    };
    match try_cuda(index, loaded) {
        Ok(()) => Ok((Device::Cuda { index, memory_gib: memory_gib(index) }, None)),
        Err(reason) if asked => Err(RuntimeError::Device(format!(
            "CUDA device {index} cannot be used: {reason}; or use --device cpu"
        ))),
        Err(reason) => {
            let is_expected = loaded.unused_card.is_some() || has_card_node();
            let note =
                is_expected.then(|| format!("working on the CPU, since CUDA cannot be used: {reason}"));
            Ok((Device::Cpu, note))
        }
    }
}

/// What a session may do on a card. Sessions on a CPU ignore it.
#[derive(Debug, Clone, Copy, Default)]
pub struct OnCard {
    /// None leaves the choice to the provider.
    pub attention: Option<Attention>,
    /// Runs can be captured as CUDA graphs: each run names its graph by `gpu_graph_id`, and -1 is an ordinary run.
    pub captures: bool,
}

/// How all sessions of a runtime use a card, where that is not the loader's choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct CardSettings {
    /// Without a trial.
    pub attention: Option<Attention>,
    /// Every run is an ordinary one.
    pub no_captures: bool,
    /// cuDNN adds a convolution's bias itself. An H100 gained 1.5 % by it, and its first call took 6 s longer.
    pub fuse_conv_bias: bool,
}

/// Sizes differ from job to job, so convolutions are chosen by rule (cuDNN 9 times nothing in an exhaustive search
/// either) and the arena grows by what is asked for, not by doubling. TF32 rounds as torch's convolutions do. NHWC
/// stays off, since exported graphs are NCHW and every switch would cost a transpose. Strict layer norms sum in
/// float32 in every version of ONNX Runtime, and cost nothing (measured).
fn cuda(index: u32, on_card: OnCard, fuse_conv_bias: bool) -> ExecutionProviderDispatch {
    let mut cuda = ep::CUDA::default();
    if let Some(attention) = on_card.attention {
        cuda = cuda.with_attention_backend(attention.flags());
    }
    if on_card.captures {
        cuda = cuda.with_cuda_graph(true);
    }
    if fuse_conv_bias {
        cuda = cuda.with_fuse_conv_bias(true);
    }
    cuda.with_skip_layer_norm_strict_mode(true)
        .with_device_id(index.cast_signed())
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        .with_tf32(true)
        .with_prefer_nhwc(false)
        .build()
        .error_on_failure()
}

/// Whether a session can be given to CUDA, or why not.
fn try_cuda(index: u32, loaded: &Loaded) -> Result<(), String> {
    if !ep::CUDA::is_available().unwrap_or(false) {
        return Err(match (loaded.library.origin, &loaded.unused_card) {
            (_, Some(reason)) => reason.clone(),
            (Origin::Named, None) => {
                "the ONNX Runtime that STABLEHAND_ORT_DYLIB names was built without CUDA".to_owned()
            }
            (_, None) => match usable(Driver::get(), true) {
                Usable::No(Some(reason)) => reason,
                _ => NOT_INSTALLED.to_owned(),
            },
        });
    }
    if let Driver::Works { cards, .. } = Driver::get() {
        let card = cards.get(index as usize).ok_or_else(|| match cards.len() {
            0 => "the NVIDIA driver shows no card".to_owned(),
            1 => "the NVIDIA driver shows one card, cuda:0".to_owned(),
            count => format!("the NVIDIA driver shows {count} cards, cuda:0 to cuda:{}", count - 1),
        })?;
        // Of another build it is not known what it serves.
        if loaded.library.origin == Origin::Installed && !serves(card.compute_capability) {
            return Err(not_served(&card.name, card.compute_capability));
        }
    }
    Session::builder(&loaded.environment)
        .and_then(|builder| Ok(builder.with_execution_providers([cuda(index, OnCard::default(), false)])?))
        .map(|_| ())
        .map_err(|error| super::reason(&error))
}

/// The card's memory, rounded to GiB.
fn memory_gib(index: u32) -> Option<u32> {
    let gib = (super::memory::card_memory(index)?.total + (1 << 29)) >> 30;
    u32::try_from(gib).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn other_devices_are_refused_with_the_list() {
        for text in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA"] {
            let sentence = text.parse::<DeviceChoice>().unwrap_err();
            assert!(sentence.contains("auto, cpu, cuda or cuda:N"), "{sentence}");
        }
    }
}
