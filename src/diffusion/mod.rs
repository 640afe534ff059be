//! The maths and ONNX: from a prompt to the bytes of a PNG. Has never heard of jobs, SQL or HTTP.

mod adapted;
mod add_ons;
mod generation;
pub mod image;
pub mod models;
pub mod noise;
mod pipeline;
mod preview;
pub mod prompt;
mod prompt_encoder;
pub mod schedulers;
mod start;
pub mod weights;

pub use add_ons::{AddOnFolders, AddOns};
pub use generation::Generation;
pub use pipeline::{DiffusionError, Picture, Pipeline};
pub use preview::LatentRgb;
pub use prompt_encoder::{Embeddings, PromptEncoder};
