//! A safety checker from weights, as Stable Diffusion v1's folders have it. Where there is none, the answer says so.
//!
//! That its scores are those of diffusers is tested beside the code, in `src/diffusion/nets/safety_checker.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use stablehand::diffusion::Pipeline;
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use tempfile::TempDir;

use crate::check::check;
use crate::checkpoints::{Tensor, diffusers_folder, original, pipeline, write};

const WEIGHTS: &str = "safety_checker/model.safetensors";
const CONFIG: &str = "safety_checker/config.json";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/safety_checker")
}

/// The built-in model's folder with these files of a small checker.
fn folder_with(files: &[&str]) -> TempDir {
    let folder = diffusers_folder();
    fs::create_dir(folder.path().join("safety_checker")).unwrap();
    for file in files {
        fs::copy(golden().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn small(nsfw: bool) -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: 64, height: 64 },
        num_inference_steps: 1,
        scheduler: SchedulerKind::EulerD,
        nsfw,
        ..GenerationInput::new("a red heart")
    }
}

/// The warnings of a small picture.
fn warnings(pipeline: &mut Pipeline, nsfw: bool) -> Vec<String> {
    let mut generation = pipeline.begin(&small(nsfw), 1).unwrap();
    pipeline.step(&mut [&mut generation]).unwrap();
    assert!(!pipeline.finish(&generation).unwrap()[0].flagged);
    generation.warnings().to_vec()
}

#[test]
fn a_checker_from_weights_is_loaded_when_a_request_first_wants_it() {
    let folder = folder_with(&[WEIGHTS, CONFIG, "graphs/safety_checker.cpu.onnx"]);
    let mut pipeline = pipeline(folder.path()).unwrap();
    assert_eq!(pipeline.model().safety_checker(), Ok(()));
    let before = pipeline.memory();
    pipeline.draw(&small(true), 1).unwrap();
    assert_eq!(pipeline.memory(), before);
    assert!(pipeline.memory_for(&[&small(false)]) > pipeline.memory_for(&[&small(true)]));

    pipeline.draw(&small(false), 1).unwrap();
    assert!(pipeline.memory() > before);
    assert_eq!(pipeline.memory_for(&[&small(false)]), pipeline.memory_for(&[&small(true)]));
    let generation = pipeline.begin(&small(false), 1).unwrap();
    assert!(generation.warnings().is_empty());

    let (code, stdout, stderr) = check(folder.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("yes, loaded when a request first wants it"), "{stdout}");
}

#[test]
fn a_checker_whose_weights_are_gone_fails_the_request_that_wants_it() {
    let folder = folder_with(&[WEIGHTS, CONFIG, "graphs/safety_checker.cpu.onnx"]);
    let mut pipeline = pipeline(folder.path()).unwrap();
    let weights = folder.path().join(WEIGHTS);
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let sentence = pipeline.draw(&small(false), 1).err().unwrap().to_string();
    assert!(sentence.contains("safety_checker/model.safetensors"), "{sentence}");
    pipeline.draw(&small(true), 1).unwrap();
}

#[test]
fn without_a_checker_the_answer_says_that_nothing_was_checked() {
    let mut pipeline = pipeline(diffusers_folder().path()).unwrap();
    assert_eq!(pipeline.model().safety_checker(), Err("it has no safety_checker"));
    assert_eq!(
        warnings(&mut pipeline, false),
        ["nsfw is false, but this model has no safety checker: no picture was checked."]
    );
    assert!(warnings(&mut pipeline, true).is_empty());
}

#[test]
fn a_checker_that_cannot_be_used_is_named_and_left_aside() {
    // Without the graph of its own, the small one is of an unknown size.
    let sizes = folder_with(&[WEIGHTS, CONFIG]);
    let shapes = folder_with(&[WEIGHTS]);
    let broken = folder_with(&[WEIGHTS]);
    fs::write(broken.path().join(WEIGHTS), b"not a file of weights").unwrap();
    let means = folder_with(&[WEIGHTS, CONFIG, "graphs/safety_checker.cpu.onnx"]);
    fs::create_dir(means.path().join("feature_extractor")).unwrap();
    fs::write(
        means.path().join("feature_extractor/preprocessor_config.json"),
        r#"{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": 224}"#,
    )
    .unwrap();
    for (folder, reason) in [
        (sizes, "its hidden_size is 32, and stablehand knows only checkers with CLIP ViT-L/14"),
        (shapes, "its weights are not those of a checker with CLIP ViT-L/14: "),
        (broken, "safety_checker/model.safetensors"),
        (means, "its feature_extractor normalises pictures in another way"),
    ] {
        let mut pipeline = pipeline(folder.path()).unwrap();
        let why = pipeline.model().safety_checker().unwrap_err().to_owned();
        assert!(why.contains(reason), "no '{reason}' in: {why}");
        let warnings = warnings(&mut pipeline, false);
        assert!(warnings[0].contains("safety checker cannot be used") && !warnings[0].contains("tensor"));
        let (code, stdout, _) = check(folder.path());
        assert_eq!(code, Some(0), "{stdout}");
        // However the lines are wrapped.
        let words = |text: &str| text.split_whitespace().collect::<String>();
        assert!(words(&stdout).contains(&words(&format!("no: {why}"))), "{stdout}");
    }
}

#[test]
fn a_checker_in_a_dump_of_everything_is_found() {
    let bytes = fs::read(golden().join(WEIGHTS)).unwrap();
    let mut tensors = original();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
        let tensor =
            Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        tensors.insert(format!("safety_checker.{name}"), tensor);
    }
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("dump.safetensors");
    write(&tensors, &checkpoint);
    let pipeline = pipeline(&checkpoint).unwrap();
    let why = pipeline.model().safety_checker().unwrap_err();
    assert!(why.contains("dump.safetensors") && why.contains("CLIP ViT-L/14"), "{why}");
}

#[test]
fn a_checkpoint_in_one_file_finds_the_checker_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("fox.safetensors");
    write(&original(), &checkpoint);
    assert!(pipeline(&checkpoint).unwrap().model().safety_checker().is_err());
    // It is found: it is the small one, for which this binary has no graph.
    fs::copy(golden().join(WEIGHTS), folder.path().join("fox.safety_checker.safetensors")).unwrap();
    let pipeline = pipeline(&checkpoint).unwrap();
    let why = pipeline.model().safety_checker().unwrap_err();
    assert!(why.contains("fox.safety_checker.safetensors") && why.contains("CLIP ViT-L/14"), "{why}");
}
