//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.

pub mod domain;
pub mod store;
