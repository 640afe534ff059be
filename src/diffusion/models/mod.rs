//! The parts of a Stable Diffusion v1 model, each behind the maths it stands for.
//!
//! Names, element types and ranks are read from the graphs, never assumed: the folders that people
//! have were written by many exporters.

mod description;
mod embedded;
mod folder;
mod graph_build;
mod hidden_layers;
mod memory;
mod onnx_file;
mod parts;
mod refusal;
mod safety_checker;
mod session;
mod text_encoder;
mod tokenizer;
mod unet;
mod vae;
mod weights_of_parts;

use std::path::PathBuf;

use crate::diffusion::weights::{LoraError, WeightsError};
use crate::runtime::RuntimeError;

pub use description::ModelDescription;
pub use folder::ModelFolder;
pub use memory::MemoryNeeds;
pub(super) use onnx_file::OnnxFile;
pub use parts::PartReport;
pub use safety_checker::SafetyChecker;
pub use session::{Change, Port};
pub use text_encoder::TextEncoder;
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerFiles, Tokens};
pub use unet::{UNet, UNetRows};
pub use vae::{Posterior, VaeDecoder, VaeEncoder};

/// Why a model cannot be used. Each names the part or the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path} is no Stable Diffusion model: {reason}")]
    NotAModel { path: PathBuf, reason: String },
    #[error("cannot read {file} of the model: {reason}")]
    File { file: String, reason: String },
    #[error("the model's {part} cannot be used: {reason}")]
    Graph { part: &'static str, reason: String },
    #[error("the model's {part} failed: {reason}")]
    Run { part: &'static str, reason: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
