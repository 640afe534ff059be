//! Checkpoints and folders of safetensors, in every common layout, draw exactly what the built-in model draws.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};
use serde_json::Value;
use stablehand::diffusion::{Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};
use tempfile::TempDir;

use crate::check::{check, one_line};
use crate::drawing::{by_the_built_in_model, draw};

const NAMES: &str = include_str!("../golden/ldm_names.json");
pub const FILES: [(&str, &str); 3] = [
    ("text_encoder", "model.fp16.safetensors"),
    ("unet", "diffusion_pytorch_model.fp16.safetensors"),
    ("vae", "diffusion_pytorch_model.fp16.safetensors"),
];
const NO_VAE: &str = "it has no VAE (no tensor first_stage_model.…): put a VAE beside it as fox.vae.safetensors, or use a \
version that has one";
const CONV_IN: &str = "model.diffusion_model.input_blocks.0.0.weight";

#[derive(Clone)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Tensors by their names.
pub type Tensors = BTreeMap<String, Tensor>;

pub fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd")
}

/// tiny-sd's weights of one component, as diffusers names them.
pub fn component(part: &str, file: &str) -> Tensors {
    tensors_of(&model().join(part).join(file))
}

/// The tensors of a safetensors file.
pub fn tensors_of(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, view)| {
        let tensor =
            Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: view.data().to_vec() };
        (name.to_owned(), tensor)
    });
    tensors.collect()
}

/// tiny-sd as an original checkpoint.
pub fn original() -> Tensors {
    let names: Value = serde_json::from_str(NAMES).unwrap();
    let parts = FILES.iter().flat_map(|(part, file)| {
        component(part, file).into_iter().map(move |(name, tensor)| (format!("{part}/{name}"), tensor))
    });
    parts.map(|(name, tensor)| (names["tiny-sd"][&name].as_str().unwrap().to_owned(), tensor)).collect()
}

pub fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).unwrap())
    });
    serialize_to_file(views, None, path).unwrap();
}

/// Halves as another type.
pub fn converted(tensors: &Tensors, dtype: Dtype, convert: impl Fn(f16) -> Vec<u8>) -> Tensors {
    let each = tensors.iter().map(|(name, tensor)| {
        let halves = tensor.bytes.chunks_exact(2).map(|pair| f16::from_le_bytes([pair[0], pair[1]]));
        let bytes = halves.flat_map(&convert).collect();
        (name.clone(), Tensor { dtype, shape: tensor.shape.clone(), bytes })
    });
    each.collect()
}

pub struct Checkpoint {
    pub folder: TempDir,
}

impl Checkpoint {
    pub fn of(tensors: &Tensors) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(tensors, &folder.path().join("fox.safetensors"));
        Self { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("fox.safetensors")
    }

    pub fn refusal(&self) -> String {
        refusal(&self.path())
    }
}

pub fn pipeline(path: &Path) -> Result<Pipeline, String> {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    Model::open(Some(path), None).and_then(|model| model.load(&runtime)).map_err(|error| error.to_string())
}

pub fn refusal(path: &Path) -> String {
    let sentence = pipeline(path).err().expect("it is refused");
    assert!(!sentence.contains('\n'), "{sentence}");
    sentence
}

#[track_caller]
pub fn assert_draws_as_the_built_in(path: &Path) {
    let scheduler = SchedulerKind::EulerD;
    let drawn = draw(&mut pipeline(path).unwrap(), scheduler);
    assert!(drawn == by_the_built_in_model(scheduler), "{} draws something else", path.display());
}

/// A copy of the model's own folder.
pub fn diffusers_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["scheduler", "tokenizer", "text_encoder", "unet", "vae", "graphs"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for entry in fs::read_dir(model().join(part)).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), folder.path().join(part).join(entry.file_name())).unwrap();
        }
    }
    for file in ["model_index.json", "stablehand.json"] {
        fs::copy(model().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn a_diffusers_folder_works_whole_and_in_shards() {
    assert_draws_as_the_built_in(&model());

    let folder = diffusers_folder();
    let unet = folder.path().join("unet");
    fs::remove_file(unet.join(FILES[1].1)).unwrap();
    let mut first = component("unet", FILES[1].1);
    let second = first.split_off("mid_block");
    write(&first, &unet.join("diffusion_pytorch_model-00001-of-00002.safetensors"));
    write(&second, &unet.join("diffusion_pytorch_model-00002-of-00002.safetensors"));
    assert_draws_as_the_built_in(folder.path());

    fs::remove_file(unet.join("diffusion_pytorch_model-00002-of-00002.safetensors")).unwrap();
    let sentence = refusal(folder.path());
    assert!(sentence.contains("one of 2 files, but only 1"), "{sentence}");
}

#[test]
fn a_byte_order_mark_in_front_of_a_text_is_skipped() {
    let folder = diffusers_folder();
    let path = folder.path();
    for file in [
        "model_index.json",
        "stablehand.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "vae/config.json",
    ] {
        let text = fs::read(path.join(file)).unwrap();
        fs::write(path.join(file), [b"\xef\xbb\xbf", text.as_slice()].concat()).unwrap();
    }
    assert_draws_as_the_built_in(path);
}

#[test]
fn text_encoders_work_with_and_without_their_prefix() {
    let folder = diffusers_folder();
    let bare = component("text_encoder", FILES[0].1)
        .into_iter()
        .map(|(name, tensor)| (name.trim_start_matches("text_model.").to_owned(), tensor))
        .collect();
    write(&bare, &folder.path().join("text_encoder").join(FILES[0].1));
    assert_draws_as_the_built_in(folder.path());
}

#[test]
fn a_checkpoint_in_one_file_works_in_every_precision() {
    let half = original();
    assert_draws_as_the_built_in(&Checkpoint::of(&half).path());
    let full = converted(&half, Dtype::F32, |value| value.to_f32().to_le_bytes().to_vec());
    assert_draws_as_the_built_in(&Checkpoint::of(&full).path());
    let brain = converted(&half, Dtype::BF16, |value| bf16::from_f32(value.to_f32()).to_le_bytes().to_vec());
    pipeline(&Checkpoint::of(&brain).path()).unwrap();
}

#[test]
fn averaged_weights_are_used_only_where_there_are_no_others() {
    let plain = original();
    let average = |name: &str| {
        name.strip_prefix("model.diffusion_model.")
            .map(|rest| format!("model_ema.diffusion_model{}", rest.replace('.', "")))
    };
    let mut both = plain.clone();
    for (name, tensor) in &plain {
        if let Some(average) = average(name) {
            let zeros = vec![0; tensor.bytes.len()];
            both.insert(average, Tensor { bytes: zeros, ..tensor.clone() });
        }
    }
    assert_draws_as_the_built_in(&Checkpoint::of(&both).path());

    let alone = plain.into_iter().map(|(name, tensor)| (average(&name).unwrap_or(name), tensor)).collect();
    assert_draws_as_the_built_in(&Checkpoint::of(&alone).path());
}

#[test]
fn a_vae_beside_the_checkpoint_is_used_even_if_it_has_its_own() {
    let mut tensors = original();
    let vae: Tensors = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            Some((name.strip_prefix("first_stage_model.")?.to_owned(), tensor.clone()))
        })
        .collect();
    for (name, tensor) in &mut tensors {
        if name.starts_with("first_stage_model.") {
            tensor.bytes.fill(0);
        }
    }
    let checkpoint = Checkpoint::of(&tensors);
    write(&vae, &checkpoint.folder.path().join("fox.vae.safetensors"));
    assert_draws_as_the_built_in(&checkpoint.path());

    tensors.retain(|name, _| !name.starts_with("first_stage_model."));
    let checkpoint = Checkpoint::of(&tensors);
    let sentence = checkpoint.refusal();
    assert!(sentence.ends_with(NO_VAE) && sentence.contains("fox.safetensors is not"), "{sentence}");
    write(&vae, &checkpoint.folder.path().join("fox.vae.safetensors"));
    assert_draws_as_the_built_in(&checkpoint.path());
}

#[test]
fn a_checkpoint_without_a_part_is_refused_by_the_name_of_the_part() {
    let without = |starts: &[&str]| {
        let mut tensors = original();
        tensors.retain(|name, _| !starts.iter().any(|start| name.starts_with(start)));
        Checkpoint::of(&tensors)
    };
    let no_text_encoder = "it has no text encoder (no tensor cond_stage_model.…): ";
    let sentence = without(&["cond_stage_model."]).refusal();
    assert!(sentence.contains(no_text_encoder) && !sentence.contains("VAE"), "{sentence}");
    let sentence = without(&["cond_stage_model.", "first_stage_model."]).refusal();
    assert!(sentence.contains(no_text_encoder) && sentence.ends_with(NO_VAE), "{sentence}");

    let checkpoint = without(&["first_stage_model."]);
    let (code, stdout, stderr) = check(&checkpoint.path());
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    let verdict = format!("fox.safetensors does not draw: {}.", checkpoint.refusal());
    assert_eq!(one_line(&stdout), one_line(&verdict));
}

#[test]
fn a_tensor_that_is_missing_or_has_a_wrong_shape_is_named() {
    let mut tensors = original();
    let lost = "model.diffusion_model.output_blocks.3.0.in_layers.2.weight";
    tensors.remove(lost).unwrap();
    let sentence = Checkpoint::of(&tensors).refusal();
    assert!(sentence.contains(lost) && sentence.contains("fox.safetensors"), "{sentence}");

    let mut tensors = original();
    let bent = tensors.get_mut("model.diffusion_model.time_embed.0.weight").unwrap();
    bent.shape.swap(0, 1);
    let sentence = Checkpoint::of(&tensors).refusal();
    for part in ["time_embed.0.weight", "[48, 192]", "[192, 48]"] {
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_weight_that_is_not_a_number_fails_the_picture_instead_of_blackening_it() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("broken.safetensors");
    for (tensor, sentence) in [
        (CONV_IN, "the latents became infinite or not a number at step 1 of 3"),
        ("first_stage_model.decoder.conv_in.weight", "the VAE gave values that are infinite or not a number"),
    ] {
        let mut tensors = original();
        tensors.get_mut(tensor).unwrap().bytes[..2].copy_from_slice(&f16::NAN.to_le_bytes());
        write(&tensors, &checkpoint);
        let mut pipeline = pipeline(&checkpoint).unwrap();
        let input = GenerationInput {
            size: ImageSize { width: 64, height: 64 },
            num_inference_steps: 3,
            ..GenerationInput::new("a fox")
        };
        let mut generation = pipeline.begin(&input, 1).unwrap();
        while !generation.is_done() {
            pipeline.step(&mut [&mut generation]).unwrap();
        }
        let refusal = pipeline.finish(&generation).unwrap_err().to_string();
        assert!(refusal.starts_with(sentence), "{refusal}");
        // The pipeline is none the worse.
        assert_eq!(generation.progress().0, generation.progress().1);
    }
}

#[test]
fn other_kinds_of_files_are_refused_by_their_kind() {
    let tensor = |shape: &[usize]| Tensor {
        dtype: Dtype::F16,
        shape: shape.to_vec(),
        bytes: vec![0; shape.iter().product::<usize>() * 2],
    };
    let cross = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight";
    let of = |names: &[(&str, &[usize])]| -> Tensors {
        names.iter().map(|(name, shape)| ((*name).to_owned(), tensor(shape))).collect()
    };
    for (tensors, what) in [
        (of(&[("conditioner.embedders.0.transformer.text_model.final_layer_norm.bias", &[4])]), "XL"),
        (of(&[("cond_stage_model.model.transformer.resblocks.0.ln_1.bias", &[4])]), "Stable Diffusion 2"),
        (of(&[(CONV_IN, &[320, 4, 3, 3]), (cross, &[4, 1024])]), "Stable Diffusion 2"),
        (of(&[("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[4])]), "Stable Diffusion 3"),
        (of(&[("double_blocks.0.img_attn.qkv.weight", &[4])]), "FLUX"),
        (of(&[("control_model.zero_convs.0.0.bias", &[4])]), "ControlNet"),
        (of(&[("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", &[4, 4])]), "--lora-dir"),
        (of(&[("unet.mid_block.attentions.0.proj_in.lora_A.weight", &[4, 4])]), "--lora-dir"),
        (of(&[("emb_params", &[1, 768])]), "textual inversion"),
        (of(&[("first_stage_model.decoder.conv_in.weight", &[4])]), "a VAE alone"),
        (of(&[("concept_embeds", &[17, 768])]), "a safety checker alone"),
        (of(&[(CONV_IN, &[64, 4, 3, 3]), (cross, &[4, 768])]), "[64, 4, 3, 3]"),
        (of(&[("weight", &[4])]), "no checkpoint"),
        (of(&[(CONV_IN, &[]), (cross, &[])]), "no graph for"),
    ] {
        let sentence = Checkpoint::of(&tensors).refusal();
        assert!(sentence.contains(what), "no '{what}' in: {sentence}");
    }
}
