//! The model folders that people have draw what the built-in model draws, and folders that cannot work are refused with a
//! reason. Every folder is derived from the built-in model: nothing is downloaded.

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
