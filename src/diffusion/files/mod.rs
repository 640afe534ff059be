//! What is read from disk, or from inside the binary: models, LoRAs, textual inversions. All of them are files of tensors,
//! in the safetensors format or in torch's (`tensor_file`).
//!
//! [`ModelFiles::open`] reads a model's configurations and the headers of its weights, once. A graph of `models/graphs`
//! names its weights as diffusers does and says where in one buffer each goes ([`Weights`]); a [`Checkpoint`] finds them
//! in files of other names and converts them on the way. [`LoraFile`] changes them there. Sessions are made elsewhere.

mod add_on_folder;
mod architecture;
mod beside;
mod checker_fault;
mod checkpoint;
mod config_expectations;
mod config_file;
mod configs;
mod controlnet_file;
mod controlnet_folder;
mod conversion;
mod embedded;
mod graph_library;
mod int8_graph;
mod lazy_checkpoint;
mod lora;
mod lora_folder;
mod model_files;
mod model_place;
mod onnx_file;
mod onnx_folder;
mod original_names;
mod original_yaml;
mod own_words;
mod part_files;
mod protobuf;
mod quoted_name;
#[cfg(test)]
pub(in crate::diffusion) mod reads;
mod refreshed;
mod refusal;
mod shards;
mod tensor_file;
mod textual_inversion;
mod textual_inversion_folder;
mod tiny_vae;
mod unread;
mod upscaler_file;
mod upscaler_folder;
mod weightless_graph;
mod weights;
mod wildcard_folder;

use std::path::PathBuf;

use super::text::TokenizerError;

pub use add_on_folder::AddOnFile;
use architecture::Architecture;
use checkpoint::Checkpoint;
use config_file::ConfigFile;
pub use configs::{
    ModelConfigs, SCHEDULER_FILE, STABLEHAND_FILE, StablehandConfig, UNetConfig, VaeConfig, halvings,
};
pub use controlnet_file::{ControlNetError, ControlNetFile};
pub use controlnet_folder::ControlNetFolder;
pub use conversion::Conversion;
pub use graph_library::GraphBuild;
use graph_library::GraphLibrary;
pub use int8_graph::{INT8_LOCATION, Int8Graph};
pub use lora::{LoraError, LoraFile, ModuleNames, Target, lora_kind, merge_loras};
pub use lora_folder::LoraFolder;
pub use model_files::ModelFiles;
use model_place::ModelPlace;
pub use onnx_file::{OnnxFile, StoredTensor};
pub use part_files::{DEEP_FEATURE, PartFiles, PartGraph};
use quoted_name::{quoted_few, quoted_name};
use tensor_file::{EXTENSIONS, TensorFile, extension_rank};
pub use textual_inversion_folder::TextualInversionFolder;
pub use tiny_vae::TinyVae;
pub use unread::Unread;
pub use upscaler_file::{UpscalerFile, UpscalerShape};
pub use upscaler_folder::UpscalerFolder;
pub use weightless_graph::{LOCATION, TOKEN_EMBEDDING, WeightlessGraph};
use weights::WeightWriter;
pub use weights::{Originals, Parameters, Weights};
pub use wildcard_folder::WildcardFolder;

/// Why files cannot be used. Each names the file and, where one tensor is the reason, that tensor.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path} is not a Stable Diffusion model: {reason}")]
    NotAModel { path: PathBuf, reason: String },
    #[error("cannot read {file} of the model: {reason}")]
    Config { file: String, reason: String },
    #[error("cannot read {file}: {reason}")]
    Unreadable { file: String, reason: String },
    #[error("the tensor {tensor} of {file} cannot be used: {reason}")]
    Tensor { tensor: String, file: String, reason: String },
    #[error("{file} has no tensor {tensor}: the file is incomplete, or a checkpoint of another kind")]
    Missing { tensor: String, file: String },
    #[error(
        "{0} has changed since it was opened: once nothing writes to it, try again, or restart stablehand if it is a \
         model's"
    )]
    Changed(String),
    #[error("{0}")]
    Unwritable(String),
    #[error("the graph cannot take weights: {0}")]
    Graph(String),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}
