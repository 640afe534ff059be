//! The parts of a Stable Diffusion v1 model as sessions. Each type has the interface of its mathematical function.
//!
//! Names, element types and ranks are read from the graphs and never assumed, because many exporters wrote the folders
//! that people have. A part is created from its [`PartFiles`](super::files::PartFiles). This module opens no other path,
//! and knows no requests or generations.

mod card;
mod card_turn;
mod controlnet;
mod graph_build;
mod guidance;
mod hidden_layers;
mod port;
mod replay;
mod safety_checker;
mod session;
mod shallow;
mod text_encoder;
mod unet;
mod unet_form;
mod upscaler;
mod vae;

use super::files::{ControlNetError, FileError, LoraError};
use crate::domain::ModelPart;
use crate::runtime::RuntimeError;

pub use controlnet::{ControlNet, ControlRows, Hint};
pub use graph_build::{best_build, plain_build};
pub use hidden_layers::HiddenLayers;
pub use port::Port;
pub use replay::MOST_BOUND_BYTES;
pub use safety_checker::SafetyChecker;
pub use session::{PartSession, WorkingMemory};
pub use text_encoder::{TextEncoder, Vocabulary};
pub use unet::{EDITING_CHANNELS, EncodedPrompt, UNet, UNetRows};
pub use unet_form::UNetForm;
pub use upscaler::{Tile, UpscalerNet, tiles, upscaler_memory};
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
    #[error("the upscaler {name} failed: {reason}")]
    Upscaler { name: String, reason: String },
    #[error("cannot make the tensor {name}: {reason}")]
    Tensor { name: String, reason: String },
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(transparent)]
    ControlNet(#[from] ControlNetError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}
