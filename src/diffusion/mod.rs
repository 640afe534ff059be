//! The maths of Stable Diffusion and the graphs that do most of it.

pub mod noise;
pub mod schedulers;
