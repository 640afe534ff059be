//! The parts of a Stable Diffusion v1 model as sessions, each behind the maths that it stands for.
//!
//! Names, element types and ranks are read from the graphs, never assumed: the folders that people have were written
//! by many exporters. A part is made from its [`PartFiles`](super::files::PartFiles); nothing here opens a path by
//! itself, and nothing here knows of requests or generations.

mod card;
mod graph_build;
mod hidden_layers;
mod replay;
mod safety_checker;
mod session;
mod text_encoder;
mod unet;
mod vae;

use super::files::{FileError, LoraError};
use crate::domain::ModelPart;
use crate::runtime::RuntimeError;

pub use graph_build::plain_build;
pub use hidden_layers::HiddenLayers;
pub use safety_checker::SafetyChecker;
pub use session::{PartSession, Port};
pub use text_encoder::TextEncoder;
pub use unet::{EncodedPrompt, UNet, UNetRows};
pub use vae::{Posterior, VaeDecoder, VaeEncoder, pixels_per_call};

/// Why a model cannot be used. Each names the part or the file.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the model's {part} cannot be used: {reason}")]
    Graph { part: ModelPart, reason: String },
    #[error("the model's {part} failed: {reason}")]
    Run { part: ModelPart, reason: String },
    #[error("cannot make the tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
