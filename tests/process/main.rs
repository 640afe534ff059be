//! The real binary with the real model: signals, kills, restarts, broken environments.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bad_disk;
mod bad_start;
#[cfg(target_os = "linux")]
mod connections;
mod convert;
mod convolutions;
#[cfg(target_os = "linux")]
mod copies;
mod endpoints;
mod files;
mod generate;
mod helpers;
mod hub;
mod kills;
mod mix;
#[cfg(target_os = "linux")]
mod nodes;
mod operate;
mod pictures;
#[cfg(unix)]
mod proxies;
mod restart;
mod resume;
mod runtime;
#[cfg(target_os = "linux")]
mod shared_cache;
#[cfg(target_os = "linux")]
mod supervised;
mod surfaces;
mod traces;
