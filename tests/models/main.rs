//! The model folders that people really have draw what the built-in model draws, and those that cannot are
//! refused with their reason. Every folder is derived here from the built-in model: nothing is downloaded.

#![allow(clippy::unwrap_used)] // a test may

mod check;
mod checkpoints;
mod drawing;
mod folders;
mod inpainting;
mod onnx;
#[path = "../golden/pictures.rs"]
mod pictures;
mod refused;
