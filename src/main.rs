//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    stablehand::cli::run(std::env::args_os())
}
