//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.

pub mod domain;
pub mod queue;
pub mod secrets;
pub mod store;
pub mod sweeper;
pub mod wire;
pub mod worker;
