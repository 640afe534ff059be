//! The real binary with the real model: signals, kills, restarts, broken environments.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bad_disk;
mod bad_start;
mod convert;
mod endpoints;
mod files;
mod generate;
mod helpers;
mod hub;
mod kills;
mod pictures;
mod restart;
mod resume;
mod runtime;
#[cfg(target_os = "linux")]
mod shared_cache;
mod surfaces;
