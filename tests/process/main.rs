//! The real binary with the real model: signals, kills, restarts, bad surroundings.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value)]

mod bad_disk;
mod bad_start;
mod endpoints;
mod files;
mod generate;
mod helpers;
mod hub;
mod kills;
mod pictures;
mod restart;
