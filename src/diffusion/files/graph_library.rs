//! The graphs of ours that a model's weights go into: the model's own in `graphs/`, else Stable Diffusion v1's inside
//! the binary. Each is read once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::embedded::SD_V1;
use super::{FileError, ModelPlace, WeightlessGraph};

/// The build of a graph, as the files in `models/graphs` are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphBuild {
    Cpu,
    /// For processors with convolutions in blocks of so many channels.
    Nchwc {
        channels_in_a_block: usize,
    },
    /// The same, with our own operators for most convolutions, attention, linear layers and norms.
    Winograd {
        channels_in_a_block: usize,
    },
    Cuda,
}

/// For people.
impl fmt::Display for GraphBuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("ONNX Runtime's convolutions"),
            Self::Nchwc { channels_in_a_block } => {
                write!(f, "ONNX Runtime's convolutions in blocks of {channels_in_a_block} channels")
            }
            Self::Winograd { .. } => f.write_str("stablehand's own convolutions (Winograd)"),
            Self::Cuda => f.write_str("CUDA's convolutions"),
        }
    }
}

impl GraphBuild {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Nchwc { .. } => "nchwc",
            Self::Winograd { .. } => "winograd",
            Self::Cuda => "cuda",
        }
    }

    pub fn channels_in_a_block(self) -> usize {
        match self {
            Self::Nchwc { channels_in_a_block } | Self::Winograd { channels_in_a_block } => {
                channels_in_a_block
            }
            Self::Cpu | Self::Cuda => 0,
        }
    }

    /// Itself and what a model may have in its place, the best first.
    fn or_others(self) -> Vec<Self> {
        match self {
            // A graph without convolutions has no build of its own for them.
            Self::Nchwc { .. } => vec![self, Self::Cpu],
            // A model's own graphs may be older than this build.
            Self::Winograd { channels_in_a_block } => {
                vec![self, Self::Nchwc { channels_in_a_block }, Self::Cpu]
            }
            Self::Cpu | Self::Cuda => vec![self],
        }
    }
}

/// Whether the file is the model's own, its name, and the channels in a block that it is read for.
type Key = (bool, String, usize);

pub struct GraphLibrary {
    place: ModelPlace,
    read: Mutex<HashMap<Key, Option<Arc<WeightlessGraph>>>>,
}

impl GraphLibrary {
    pub fn new(place: ModelPlace) -> Self {
        Self { place, read: Mutex::new(HashMap::new()) }
    }

    /// The graph of this name in this build.
    pub fn find(&self, name: &str, build: GraphBuild) -> Result<Arc<WeightlessGraph>, FileError> {
        let file = |build: GraphBuild| (format!("{name}.{}.onnx", build.name()), build.channels_in_a_block());
        let files: Vec<_> = build.or_others().into_iter().map(file).collect();
        for is_own in [true, false] {
            for (file, channels_in_a_block) in &files {
                if let Some(graph) = self.read(is_own, file, *channels_in_a_block)? {
                    return Ok(graph);
                }
            }
        }
        Err(self.place.not_a_model(format!("there is no graph {} for its weights", files[0].0)))
    }

    fn read(
        &self,
        is_own: bool,
        file: &str,
        channels_in_a_block: usize,
    ) -> Result<Option<Arc<WeightlessGraph>>, FileError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (is_own, file.to_owned(), channels_in_a_block);
        if let Some(graph) = read.get(&key) {
            return Ok(graph.clone());
        }
        let onnx = match is_own {
            true => self.place.read(&format!("graphs/{file}"))?,
            false => SD_V1.get(file).map(Cow::Borrowed),
        };
        let graph = match onnx {
            Some(onnx) => Some(Arc::new(WeightlessGraph::read(onnx, channels_in_a_block)?)),
            None => None,
        };
        read.insert(key, graph.clone());
        Ok(graph)
    }
}
