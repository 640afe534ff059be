//! stablehand: Stable Diffusion as a service on one's own machine, in one binary.

pub mod app;
pub mod cli;
pub mod config;
pub mod diffusion;
pub mod domain;
pub mod http;
pub mod metrics;
pub mod queue;
pub mod runtime;
pub mod secrets;
pub mod store;
pub mod sweeper;
pub mod wire;
pub mod worker;
