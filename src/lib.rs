//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.

pub mod domain;
pub mod queue;
pub mod store;
pub mod sweeper;
pub mod worker;
