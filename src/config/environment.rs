//! The environment before anything reads it.

use std::env;
use std::ffi::OsStr;

/// Our own settings, and variables of others that we read.
const NAMES: [&str; 8] = [
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "HUGGINGFACE_HUB_CACHE",
    "NOTIFY_SOCKET",
    "SSL_CERT_FILE",
    "TMPDIR",
];

/// Removes settings that are set to nothing: container tools set a variable that has no value to an empty text.
///
/// # Safety
///
/// No other thread may exist yet: it could read the environment while this changes it.
#[expect(unsafe_code, reason = "changing the environment is only sound while there is one thread")]
pub unsafe fn forget_empty_variables() {
    let empty = env::vars_os().filter(|(name, value)| value.is_empty() && is_setting(name));
    for (name, _) in empty.collect::<Vec<_>>() {
        // SAFETY: the caller promises that there is no other thread.
        unsafe { env::remove_var(name) };
    }
}

fn is_setting(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("STABLEHAND_") || NAMES.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_are_forgotten() {
        for name in ["STABLEHAND_MODEL", "STABLEHAND_ORT_DYLIB", "HF_TOKEN", "TMPDIR"] {
            assert!(is_setting(OsStr::new(name)), "{name}");
        }
        for name in ["PATH", "NO_COLOR", "MY_STABLEHAND_MODEL", ""] {
            assert!(!is_setting(OsStr::new(name)), "{name}");
        }
    }
}
