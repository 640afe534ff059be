//! The weights of checkpoints as people have them, and their way into the graphs that come without.
//!
//! A graph of `models/graphs` names its weights as diffusers does and says where in one buffer each is to be
//! ([`Weights`]); a [`Checkpoint`] finds them in files of other names and converts them on their way. What changes them
//! there ([`LoraFile`]) or comes beside them ([`EmbeddingFolder`]) lies in folders of its own.

mod add_on_folder;
mod architecture;
mod checkpoint;
mod embedded;
mod lora;
mod lora_folder;
mod model_files;
mod onnx_file;
mod original_names;
mod part_files;
mod refusal;
mod safetensors_file;
mod textual_inversion;
mod textual_inversion_folder;
mod weightless_graph;

pub use add_on_folder::AddOn;
pub use architecture::Architecture;
pub use checkpoint::Checkpoint;
pub use lora::{AddTo, LoraError, LoraFile, ModuleNames, Target};
pub use lora_folder::LoraFolder;
pub use model_files::ModelFolder;
pub(super) use onnx_file::{OnnxFile, StoredTensor};
pub use safetensors_file::SafetensorsFile;
pub use textual_inversion_folder::EmbeddingFolder;
pub use weightless_graph::{LOCATION, WeightWriter, WeightlessGraph, Weights};

/// Why weights cannot be used. Each names the file and, where it is one tensor's fault, that tensor.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error("cannot read {file}: {reason}")]
    File { file: String, reason: String },
    #[error("the tensor {tensor} of {file} cannot be used: {reason}")]
    Tensor { tensor: String, file: String, reason: String },
    #[error("{file} has no tensor {tensor}: it is incomplete, or a checkpoint of another kind")]
    Missing { tensor: String, file: String },
    #[error("{0} changed while it was read: load it again once nothing writes to it")]
    Changed(String),
    #[error("the graph cannot take weights: {0}")]
    Graph(String),
}
