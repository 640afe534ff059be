//! The program.

use std::process::ExitCode;

#[expect(unsafe_code, reason = "the environment is changed before there is a second thread")]
fn main() -> ExitCode {
    // SAFETY: nothing has started a thread yet.
    unsafe {
        stablehand::config::forget_empty_variables();
        stablehand::runtime::disable_telemetry();
    }
    stablehand::cli::run(std::env::args_os())
}
