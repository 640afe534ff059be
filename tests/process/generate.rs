//! `stablehand generate`.

use std::fs;

use crate::helpers::{assert_refused, data_dir, output, stablehand};

const QUICK: [&str; 6] = ["--steps", "2", "--width", "64", "--height", "64"];

#[test]
fn a_picture_is_written_to_the_output_file() {
    let folder = data_dir();
    let mut command = stablehand(&["generate", "a red fox", "-o", "fox.png", "--seed", "3"]);
    let output = output({
        command.args(QUICK).current_dir(folder.path());
        command
    });
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("fox.png  seed 3  64×64"));
    assert!(fs::read(folder.path().join("fox.png")).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn several_pictures_are_numbered() {
    let folder = data_dir();
    let mut command = stablehand(&["generate", "a red fox", "-o", "fox.png", "--num-outputs", "2"]);
    command.args(QUICK).current_dir(folder.path());
    assert!(output(command).status.success());
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["fox-0.png", "fox-1.png"]);
}

#[test]
fn standard_output_gets_only_the_png() {
    let mut command = stablehand(&["generate", "a red fox", "-o", "-"]);
    command.args(QUICK);
    let output = output(command);
    assert!(output.status.success());
    assert!(output.stdout.starts_with(b"\x89PNG") && output.stdout.ends_with(b"IEND\xaeB`\x82"));
    assert!(output.stderr.is_empty(), "without a terminal there is no progress bar");
}

#[test]
fn a_lora_may_be_a_file_or_a_name() {
    let loras = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lora");
    let draw = |args: &[&str]| {
        let mut command = stablehand(&["generate", "a red fox", "--seed", "3", "-o", "-"]);
        command.args(args).args(QUICK);
        output(command)
    };
    let by_file = draw(&["--lora", &format!("{loras}/kohya.safetensors"), "--lora-scale", "0.5"]);
    assert!(by_file.status.success(), "{}", String::from_utf8_lossy(&by_file.stderr));
    let by_name = draw(&["--lora", "kohya", "--lora-scale", "0.5", "--lora-dir", loras]);
    assert!(by_name.stdout == by_file.stdout && by_name.stdout != draw(&[]).stdout);
    let refused = draw(&["--lora", "nothing", "--lora-dir", loras]);
    assert_refused(&refused, 2, &["--lora does not meet the constraints. There is no LoRA nothing"]);
}

#[test]
fn a_picture_is_repainted_where_the_mask_is_white() {
    let folder = data_dir();
    let draw = |args: &[&str]| {
        let mut command = stablehand(&["generate", "a red fox", "--seed", "3"]);
        command.args(args).args(QUICK).current_dir(folder.path());
        output(command)
    };
    assert!(draw(&["-o", "fox.png"]).status.success());
    // The picture is its own mask: light areas are repainted.
    let repainted =
        draw(&["--init-image", "fox.png", "--mask", "fox.png", "--prompt-strength", "1", "-o", "again.png"]);
    assert!(repainted.status.success(), "{}", String::from_utf8_lossy(&repainted.stderr));
    assert!(fs::read(folder.path().join("again.png")).unwrap().starts_with(b"\x89PNG"));

    fs::write(folder.path().join("no.png"), "no picture").unwrap();
    assert_refused(&draw(&["--init-image", "no.png"]), 2, &["--init-image", "PNG, JPEG, WebP, GIF, BMP or TIFF"]);
    assert_refused(&draw(&["--init-image", "none.png"]), 1, &["cannot read none.png"]);
}

#[test]
fn an_invalid_flag_is_one_line() {
    for (args, code, parts) in [
        (&["--steps", "501"][..], 2, &["--steps", "from 1 to 500"][..]),
        (&["--width", "100"], 2, &["--width", "a multiple of 8"]),
        (&["--scheduler", "FASTEST"], 2, &["--scheduler", "K-LMS"]),
        (&["--scheduler", "Euler a Karras"], 2, &["EULER-A has no Karras sigmas"]),
        (&["--scheduler", "DDIM", "--karras"], 2, &["DDIM has no Karras sigmas"]),
        (&["--noise", "gpu"], 2, &["noise", "cpu, cuda"]),
        (&["--clip-skip", "9"], 2, &["--clip-skip", "supports 1 to 3"]),
        (&["--negative-prompt", &"BREAK ".repeat(40)], 2, &["more than 32 chunks"]),
        (&["--guidance-scale", "nan"], 2, &["--guidance-scale", "a number"]),
        (&["--device", "cuda:7"], 1, &["CUDA device 7 cannot be used"]),
        (&["--model", "/nowhere"], 1, &["/nowhere", "not a Stable Diffusion model"]),
        (&["-o", "/nowhere/fox.png", "--steps", "1"], 1, &["cannot write /nowhere/fox.png"]),
    ] {
        let mut command = stablehand(&["generate", "a red fox"]);
        command.args(args);
        assert_refused(&output(command), code, parts);
    }
}
