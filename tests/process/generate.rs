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
fn the_name_of_the_file_chooses_the_format() {
    let folder = data_dir();
    for (name, beginning) in [("fox.jpg", &b"\xff\xd8\xff"[..]), ("fox.webp", b"RIFF"), ("fox", b"\x89PNG")] {
        let mut command = stablehand(&["generate", "a red fox", "-o", name, "--seed", "-1"]);
        command.args(QUICK).current_dir(folder.path());
        let output = output(command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = fs::read(folder.path().join(name)).unwrap();
        assert!(file.starts_with(beginning), "{name}");
        // The parameters, in UTF-16 where the format has EXIF.
        let steps = "Steps: 2, ";
        let utf16: Vec<u8> = steps.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let holds = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
        assert!(holds(&utf16) || holds(steps.as_bytes()), "{name}");
    }
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
    assert_refused(&refused, 2, &["--lora: There is no LoRA nothing"]);
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
    assert_refused(
        &draw(&["--init-image", "no.png"]),
        2,
        &["--init-image no.png is not a picture", "PNG, JPEG, WebP, GIF, BMP or TIFF"],
    );
    assert_refused(&draw(&["--init-image", "none.png"]), 1, &["cannot read none.png"]);
    assert_refused(
        &draw(&["--controlnet", "canny=no.png,weight=x"]),
        2,
        &[
            "--controlnet canny=no.png is not a picture",
            "weight in --controlnet canny=no.png must be a number",
        ],
    );
    let mut upscale = stablehand(&["upscale", "no.png", "large.png"]);
    upscale.current_dir(folder.path());
    assert_refused(&output(upscale), 2, &["no.png is not a picture"]);
}

#[test]
fn an_invalid_flag_is_one_line() {
    for (args, code, parts) in [
        (&["--steps", "501"][..], 2, &["--steps", "from 1 to 500"][..]),
        (&["--width", "65"], 2, &["--width is 65; it must be a multiple of 8."]),
        (&["--width", "-64"], 2, &["'-64' for '--width <PX>'", "not in 0..="]),
        (
            &["--seed", "abc"],
            2,
            &["'abc' for '--seed <SEED>'", "18446744073709551615, or -1 for a random one"],
        ),
        (&["--seed", "-2"], 2, &["--seed is -2; it must be a whole number from 0", "or -1 for a random one"]),
        (&["--steps", "many"], 2, &["'many' for '--steps <STEPS>'", "a whole number"]),
        (&["-o", "fox.gif"], 2, &["'fox.gif' for '--output <FILE>'", ".png, .jpg or .webp"]),
        (&["--guidance-end", "1.5"], 2, &["--guidance-end is 1.5; it must be from 0 to 1."]),
        (&["--scheduler", "FASTEST"], 2, &["--scheduler is \"FASTEST\"; it must be one of", "K-LMS"]),
        (&["--scheduler", "DDIM Karras"], 2, &["DDIM does not take the spacing karras"]),
        (&["--spacing", "random"], 2, &["--spacing is \"random\"; it must be one of karras, "]),
        (&["--eta", "1.5"], 2, &["--eta is 1.5; it must be from 0 to 1."]),
        (&["--scheduler", "DDIM", "--karras"], 2, &["DDIM does not take the spacing karras"]),
        (&["--noise", "gpu"], 2, &["noise", "cpu, cuda"]),
        (&["--clip-skip", "9"], 2, &["--clip-skip", "supports 1 to 3"]),
        (&["--negative-prompt", &"BREAK ".repeat(40)], 2, &["more than 32 chunks"]),
        (&["--guidance-scale", "nan"], 2, &["--guidance-scale", "a number"]),
        (&["--device", "cuda:7"], 1, &["CUDA device 7 cannot be used"]),
        (&["--model", "/nowhere"], 1, &["/nowhere", "not a Stable Diffusion model"]),
        (&["-o", "/nowhere/fox.png", "--steps", "1"], 2, &["there is no folder /nowhere"]),
        (
            &["--lora", "nope.safetensors"],
            2,
            &["--lora nope.safetensors, which is no file: There is no LoRA"],
        ),
        (&["--hires-scale", "9"], 2, &["--hires-scale is 9"]),
    ] {
        let mut command = stablehand(&["generate", "a red fox"]);
        command.args(args);
        assert_refused(&output(command), code, parts);
    }
}
