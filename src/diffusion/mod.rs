//! The maths and ONNX: from a prompt to the bytes of a PNG. Has never heard of jobs, SQL or HTTP.

pub mod image;
pub mod models;
pub mod noise;
pub mod prompt;
pub mod schedulers;
