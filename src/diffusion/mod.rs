//! The maths and ONNX: from a prompt to the bytes of a PNG. Knows nothing of jobs, SQL or HTTP.
//!
//! One direction: `text ← files ← nets ← pipeline`. `text` is prompts; `files` is what is read from disk; `nets` are
//! the model's parts as sessions; `pipeline` opens a [`Model`] and draws with it. `schedulers`, `noise` and `image`
//! stand beside them and know none of them; `bytes` is what they are saved as. Nothing imports back.

mod bytes;
mod files;
pub mod image;
mod nets;
mod noise;
mod pipeline;
mod schedulers;
mod text;

pub use files::{ControlNetFolder, Conversion, FileError};
pub use image::{EncodedPicture, PictureFile, PictureTexts, RgbImage, decode_image, encode_png};
pub use nets::{ModelError, Port};
pub use noise::BatchNoise;
pub use pipeline::{
    Adaptation, Adapted, AddOnFolders, DiffusionError, Generation, LoadedModel, Made, Making, MemoryNeeds,
    Model, ModelDescription, PartReport, Picture, Pipeline, Prepared, Upscalers, Upscaling, batch_rows,
};
pub use schedulers::{SchedulerConfig, build as build_scheduler};
pub use text::{MAX_WEIGHT, Piece, Tokenizer, Tokens, parse as parse_prompt};
