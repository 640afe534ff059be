//! Which convolutions `models check` draws with, and what it says of the memory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::helpers::{data_dir, output, stablehand};

const OURS: &str = "stablehand's own convolutions (Winograd)";
const THEIRS: &str = "ONNX Runtime's convolutions";

/// What `models check` says of the memory, with this speed and these flags.
fn check(cache: &Path, speed: &str, flags: &[&str]) -> String {
    let mut command = stablehand(&["models", "check", "--device", "cpu"]);
    command.args(flags).env("STABLEHAND_CPU_SPEED", speed).env("STABLEHAND_CACHE_DIR", cache);
    let output = output(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    in_one_line(text.split("\nMemory\n").nth(1).unwrap().split("\n\n").next().unwrap())
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn remembered(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect()
}

#[test]
fn models_check_says_what_a_model_takes_and_how_it_is_drawn() {
    let cache = data_dir();
    let theirs = check(cache.path(), "memory", &["--threads", "1"]);
    assert!(
        theirs.contains("weights") && theirs.contains("more at most while it draws 128×128 px"),
        "{theirs}"
    );
    assert!(theirs.contains(THEIRS) && theirs.ends_with(", 1 thread"), "{theirs}");
    assert!(!theirs.contains("for its convolutions"), "{theirs}");
    assert!(remembered(cache.path()).is_empty(), "nothing was timed");
    if cfg!(target_arch = "x86_64") {
        let ours = check(cache.path(), "fast", &[]);
        assert!(ours.contains(OURS) && ours.contains("for its convolutions"), "{ours}");
    }
}

#[test]
fn the_built_in_model_is_too_small_for_anything_to_be_timed() {
    let cache = data_dir();
    let usual = check(cache.path(), "auto", &[]);
    assert_eq!(usual, check(cache.path(), "memory", &[]));
    assert!(usual.contains(THEIRS) && remembered(cache.path()).is_empty(), "{usual}");
}
