//! The maths and ONNX: from a prompt to the bytes of a PNG. Has never heard of jobs, SQL or HTTP.

pub mod files;
pub mod image;
pub mod nets;
pub mod noise;
mod pipeline;
pub mod schedulers;
pub mod text;

pub use pipeline::{AddOnFolders, AddOns, DiffusionError, Generation, ModelDescription, Picture, Pipeline};
