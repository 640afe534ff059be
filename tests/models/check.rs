//! `stablehand models check` prints what it found. Its exit code says whether the model draws.

use std::path::Path;
use std::process::Command;

use crate::folders::Folder;

/// The exit code, standard output and standard error.
pub fn check(path: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stablehand"));
    let output = command.args(["models", "check", "--device", "cpu"]).arg(path).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A text without its line breaks.
pub fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A line's words, however they are aligned.
fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_folder_is_described_part_by_part() {
    let folder = Folder::diffusers_legacy();
    let (code, stdout, stderr) = check(folder.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let found = lines(&stdout);
    for line in [
        "in input_ids int32 [batch, sequence]",
        "in timestep int64 [batch]",
        "out latent_sample float32 [batch, 4, height, width]",
        "sides 512 px native, in multiples of 64 px",
        "VAE 8 px a latent, 4 channels, scaling factor 0.18215",
        "tokenizer a window of 77 tokens",
        "scheduler K-LMS, where a request names none",
        "image to image yes",
        "LoRAs no: its weights lie inside its graphs",
        "safety checker no: it has no safety_checker",
        "its VAE states no scaling_factor: 0.18215 is used",
    ] {
        assert!(found.iter().any(|found| found == line), "no '{line}' in:\n{stdout}");
    }
    assert!(found.iter().any(|line| line.contains("weights.pb") && line.contains("MB")), "{stdout}");
    for warning in ["whole timesteps", "its own random numbers"] {
        assert!(found.iter().any(|line| line.contains(warning)), "{stdout}");
    }
    assert!(found[0].contains("draws: a step at 64×64 px took"), "{stdout}");
    assert!(stdout.lines().all(|line| line.chars().count() <= 100 || !line.trim().contains(' ')), "{stdout}");
}

#[test]
fn optional_parts_that_are_missing_are_named() {
    let folder = Folder::unpaint();
    let (code, stdout, _) = check(folder.path());
    let found = lines(&stdout);
    assert_eq!(code, Some(0), "{stdout}");
    for line in ["in timestep float16 [batch]", "image to image no: it has no vae_encoder"] {
        assert!(found.iter().any(|found| found == line), "no '{line}' in:\n{stdout}");
    }
}

#[test]
fn a_model_that_cannot_draw_is_one_sentence_and_code_1() {
    let broken = Folder::tiny_sd();
    broken.remove(&["unet/model.onnx"]);
    for path in [broken.path(), Path::new("/no/such/folder")] {
        let (code, stdout, stderr) = check(path);
        assert_eq!((code, stderr.as_str()), (Some(1), ""));
        let sentence = one_line(&stdout);
        assert!(
            sentence.contains(" does not draw: ") && sentence.contains("not a Stable Diffusion model"),
            "{sentence}"
        );
    }
}
