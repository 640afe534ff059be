//! The real binary with the real model: signals, kills, restarts, bad surroundings.

mod bad_start;
mod files;
mod generate;
mod helpers;
mod restart;
