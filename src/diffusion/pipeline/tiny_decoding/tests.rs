//! Against diffusers (`tests/golden/tiny_vae.py`), in every form and place that a tiny VAE has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::diffusion::AddOnFolders;
use crate::domain::{GenerationInput, ImageSize, Vae};
use crate::runtime::DeviceChoice;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The built-in model as a folder, without its tiny VAE and with this scaling factor.
fn model_folder(scaling_factor: f64) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let built_in = Path::new(ROOT).join("models/tiny-sd");
    for entry in fs::read_dir(&built_in).unwrap() {
        let name = entry.unwrap().file_name();
        if !["vae", "vae_tiny"].contains(&name.to_str().unwrap()) {
            symlink(built_in.join(&name), folder.path().join(&name)).unwrap();
        }
    }
    let vae = folder.path().join("vae");
    fs::create_dir(&vae).unwrap();
    let weights = "diffusion_pytorch_model.fp16.safetensors";
    symlink(built_in.join("vae").join(weights), vae.join(weights)).unwrap();
    let config = fs::read(built_in.join("vae/config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    config["scaling_factor"] = json!(scaling_factor);
    fs::write(vae.join("config.json"), config.to_string()).unwrap();
    folder
}

fn golden() -> Vec<u8> {
    fs::read(Path::new(ROOT).join("tests/golden/tiny_vae/tiny_vae.safetensors")).unwrap()
}

/// The golden file with other names. Tensors without one are left out.
fn renamed(name: impl Fn(&str) -> Option<String>) -> Vec<u8> {
    let bytes = golden();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = all.iter().filter_map(|(old, tensor)| Some((name(old)?, tensor)));
    safetensors::serialize(tensors.collect::<Vec<_>>(), None).unwrap()
}

/// As the original names the decoder's layers.
fn original(name: &str) -> Option<String> {
    let (number, rest) = name.strip_prefix("decoder.layers.")?.split_once('.')?;
    Some(format!("{}.{rest}", number.parse::<u32>().unwrap() + 1))
}

/// As the original names the encoder's.
fn encoder(name: &str) -> Option<String> {
    name.strip_prefix("encoder.layers.").map(str::to_owned)
}

fn add_ons(tiny_vaes: PathBuf) -> AddOnFolders {
    let nowhere = || PathBuf::from("/nowhere");
    AddOnFolders {
        loras: nowhere(),
        controlnets: nowhere(),
        embeddings: nowhere(),
        wildcards: nowhere(),
        upscalers: nowhere(),
        tiny_vaes,
        lora_memory: 0,
        look_every: Duration::ZERO,
    }
}

fn open(folder: &Path, tiny_vaes: &Path) -> Model {
    Model::open(Some(folder), Some(add_ons(tiny_vaes.to_owned()))).unwrap()
}

fn runtime() -> Runtime {
    Runtime::load(DeviceChoice::Cpu).unwrap()
}

/// Fails unless it decodes as diffusers does.
fn check(model: &Model) {
    let mut tiny = TinyDecoding::new(model, &runtime());
    let expected = Path::new(ROOT).join("tests/golden/tiny_vae/expected.json");
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(expected).unwrap()).unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let side = |name: &str| usize::try_from(case[name].as_u64().unwrap()).unwrap();
        let (height, width) = (side("height"), side("width"));
        // The script's `latents()`.
        let mut values =
            (0_u32..).map(|index| f32::from(i16::try_from(index * 37 % 101).unwrap() - 50) * 0.09);
        let latents = Array4::from_shape_simple_fn((1, 4, height, width), || values.next().unwrap());
        let pixels = tiny.decode(&latents).unwrap();
        assert_eq!(pixels.dim(), (1, 3, 8 * height, 8 * width));
        let expected: Vec<f32> = serde_json::from_value(case["values"].clone()).unwrap();
        assert_eq!(expected.len(), pixels.len().div_ceil(97));
        let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        for (ours, theirs) in pixels.iter().step_by(97).zip(expected) {
            assert!((ours - theirs).abs() <= 1e-4 * largest, "{ours} {theirs}");
        }
    }
}

#[test]
fn every_form_of_a_file_decodes_as_diffusers_does() {
    let nowhere = Path::new("/nowhere");
    for (name, bytes) in [
        ("diffusion_pytorch_model.safetensors", golden()),
        ("taesd_decoder.safetensors", renamed(original)),
        (
            "taesd.safetensors",
            renamed(|name| {
                let decoder = original(name).map(|name| format!("taesd_decoder.{name}"));
                decoder.or_else(|| Some(format!("taesd_encoder.{}", encoder(name)?)))
            }),
        ),
        (
            "both.safetensors",
            renamed(|name| {
                let decoder = original(name).map(|name| format!("decoder.{name}"));
                decoder.or_else(|| Some(format!("encoder.{}", encoder(name)?)))
            }),
        ),
    ] {
        let folder = model_folder(0.54509);
        fs::create_dir(folder.path().join("vae_tiny")).unwrap();
        fs::write(folder.path().join("vae_tiny").join(name), bytes).unwrap();
        let model = open(folder.path(), nowhere);
        assert_eq!(model.tiny_vae(), Ok(None), "{name}");
        check(&model);
    }
}

#[test]
fn models_of_stable_diffusion_1_use_the_one_in_the_folder() {
    let (folder, tiny_vaes) = (model_folder(0.18215), tempfile::tempdir().unwrap());
    let model = open(folder.path(), tiny_vaes.path());
    let parse = |model: &Model| {
        let input =
            json!({"prompt": "a fox", "width": 64, "height": 64, "num_inference_steps": 2, "vae": "tiny"});
        GenerationInput::parse(&input, model.rules()).map_err(|violations| violations.to_string())
    };
    assert_eq!(
        parse(&model).unwrap_err(),
        "vae does not meet the constraints. It is tiny, but there is no tiny VAE for this model: `stablehand models pull \
         --tiny-vae madebyollin/taesd` fetches one."
    );
    // The half that nobody asks for, alone.
    let pulled = tiny_vaes.path().join("madebyollin/taesd");
    fs::create_dir_all(&pulled).unwrap();
    fs::write(pulled.join("taesd_encoder.safetensors"), renamed(encoder)).unwrap();
    let refusal = parse(&model).unwrap_err();
    assert!(
        refusal.contains("(--tiny-vae-dir) cannot be used: taesd_encoder.safetensors has no tensor"),
        "{refusal}"
    );
    fs::write(pulled.join("taesd_decoder.safetensors"), renamed(original)).unwrap();
    let input = parse(&model).unwrap();
    assert_eq!(input.vae, Vae::Tiny);
    assert_eq!(model.tiny_vae(), Ok(Some("madebyollin/taesd/taesd_decoder".to_owned())));
    check(&model);

    let mut pipeline = model.load(&runtime()).unwrap();
    let tiny = pipeline.draw(&input, 3).unwrap().remove(0);
    let full = pipeline.draw(&GenerationInput { vae: Vae::Full, ..input.clone() }, 3).unwrap().remove(0);
    assert_ne!(tiny.image, full.image);
    assert!(tiny.texts.parameters.contains(", VAE Decoder: TAESD"), "{}", tiny.texts.parameters);
    assert!(!full.texts.parameters.contains("VAE Decoder"), "{}", full.texts.parameters);
    // A job that was taken before the file went fails with a sentence.
    fs::remove_dir_all(&pulled).unwrap();
    let error = pipeline.draw(&input, 3).unwrap_err().to_string();
    assert!(error.starts_with("the tiny VAE is not there any more: there is no tiny VAE"), "{error}");
}

#[test]
fn latents_of_another_model_need_a_tiny_vae_of_their_own() {
    let (folder, tiny_vaes) = (model_folder(0.54509), tempfile::tempdir().unwrap());
    fs::write(tiny_vaes.path().join("taesd.safetensors"), golden()).unwrap();
    let refused = open(folder.path(), tiny_vaes.path()).tiny_vae().unwrap_err();
    assert_eq!(refused, "this model has none, and its latents are not Stable Diffusion v1's");
    // One that cannot be read does not keep the model from drawing without it.
    fs::create_dir(folder.path().join("vae_tiny")).unwrap();
    fs::write(folder.path().join("vae_tiny/taesd.safetensors"), b"nothing").unwrap();
    let model = open(folder.path(), tiny_vaes.path());
    let refused = model.tiny_vae().unwrap_err();
    assert!(refused.starts_with("this model's tiny VAE cannot be used: "), "{refused}");
    model.load(&runtime()).unwrap();
}

#[test]
fn one_is_counted_where_it_is_asked_for_and_stays() {
    let model = Model::open(None, None).unwrap();
    let mut pipeline = model.load(&runtime()).unwrap();
    let input = |vae| GenerationInput {
        size: ImageSize { width: 64, height: 64 },
        num_inference_steps: 1,
        vae,
        ..GenerationInput::new("a fox")
    };
    let (full, tiny) = (input(Vae::Full), input(Vae::Tiny));
    let (before, asked) = (pipeline.memory_for(&[&full]), pipeline.memory_for(&[&tiny]));
    let (weights, features) = pipeline.tiny.size().unwrap();
    assert_eq!((asked - before, features), (weights, 16));
    pipeline.draw(&tiny, 1).unwrap();
    assert_eq!(pipeline.memory_for(&[&full]), asked);
}

#[test]
fn previews_of_such_a_job_are_decoded() {
    let mut pipeline = Model::open(None, None).unwrap().load(&runtime()).unwrap();
    let mut preview = |vae| {
        let input = GenerationInput {
            size: ImageSize { width: 128, height: 64 },
            num_inference_steps: 2,
            vae,
            ..GenerationInput::new("a fox")
        };
        let mut generation = pipeline.begin(&input, 1).unwrap();
        assert!(pipeline.preview(&generation).is_none(), "nothing was predicted yet");
        pipeline.step(&mut [&mut generation]).unwrap();
        crate::diffusion::decode_image(&pipeline.preview(&generation).unwrap()).unwrap()
    };
    let (full, tiny) = (preview(Vae::Full), preview(Vae::Tiny));
    // The other is a map of the latents, with one colour for each eight pixels.
    assert_eq!(tiny.size(), ImageSize { width: 128, height: 64 });
    assert_ne!(tiny.pixels, full.pixels);
}
