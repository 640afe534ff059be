//! ONNX Runtime's telemetry, which stays off.

use std::env;

const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Turns ONNX Runtime's telemetry off for this process. Its official builds write a device id and a database under the
/// home folder, unless this variable is set before the library is loaded.
///
/// A program that uses this crate calls it first thing in `main`, or is started with `ORT_DISABLE_TELEMETRY=1` in its
/// environment. Cargo does that for tests and benches (`.cargo/config.toml`).
///
/// # Safety
///
/// No other thread may exist yet: it could read the environment while this changes it.
#[expect(unsafe_code, reason = "changing the environment is only sound while there is one thread")]
pub unsafe fn disable_telemetry() {
    // SAFETY: the caller promises that there is no other thread.
    unsafe { env::set_var(VARIABLE, "1") };
}

/// Warns if nobody has turned it off, just before the library is loaded.
pub(super) fn check_disabled() {
    if env::var_os(VARIABLE).is_none() {
        tracing::warn!("{VARIABLE} is not set: ONNX Runtime may write a device id under the home folder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_runs_tests_with_telemetry_off() {
        assert!(env::var_os("CARGO").is_none() || env::var_os(VARIABLE).is_some());
    }
}
