//! The model folders that people have draw what the built-in model draws, and folders that cannot work are refused with a
//! reason. Every folder is derived from the built-in model: nothing is downloaded.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod check;
mod checkpoints;
mod drawing;
mod folders;
mod formats;
mod guided;
mod inpainting;
mod onnx;
#[path = "../golden/pictures.rs"]
mod pictures;
mod pix2pix;
mod refused;
mod safety;
mod said;
mod strays;
mod text_encoders;
mod torch;
#[path = "../golden/torch_writer.rs"]
mod torch_writer;
