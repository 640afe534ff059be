//! The parts of a Stable Diffusion v1 model, each behind the maths it stands for.
//!
//! Names, element types and ranks are read from the graphs, never assumed: the folders that people
//! have were written by many exporters.

mod card;
mod graph_build;
mod hidden_layers;
mod part_report;
mod replay;
mod safety_checker;
mod session;
mod text_encoder;
mod unet;
mod vae;

use std::path::PathBuf;

use crate::diffusion::files::{LoraError, WeightsError};
use crate::diffusion::text::TokenizerError;
use crate::domain::ModelPart;
use crate::runtime::RuntimeError;

pub use graph_build::GraphBuild;
pub use hidden_layers::HiddenLayers;
pub use part_report::PartReport;
pub use safety_checker::SafetyChecker;
pub use session::{Change, Port};
pub use text_encoder::TextEncoder;
pub use unet::{EncodedPrompt, UNet, UNetRows};
pub use vae::{Posterior, VaeDecoder, VaeEncoder, pixels_per_call};

/// Why a model cannot be used. Each names the part or the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("{path} is no Stable Diffusion model: {reason}")]
    NotAModel { path: PathBuf, reason: String },
    #[error("cannot read {file} of the model: {reason}")]
    File { file: String, reason: String },
    #[error("the model's {part} cannot be used: {reason}")]
    Graph { part: ModelPart, reason: String },
    #[error("the model's {part} failed: {reason}")]
    Run { part: ModelPart, reason: String },
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
