//! A model in every form that people have runs on the card, from a prompt to a picture.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize_to_file};
use serde_json::Value;
use stablehand::diffusion::{Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, ImageSource, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use crate::card::{ARCHITECTURES, USUAL, on_cards};
use crate::folders::Folder;
use crate::profile::Placement;

/// The model at a path, or the built-in one, on the card.
pub fn load(path: Option<&Path>, runtime: &Runtime) -> Pipeline {
    Model::open(path, None).unwrap().load(runtime).unwrap()
}

pub fn runtime() -> Runtime {
    Runtime::load(DeviceChoice::Cuda(0)).unwrap()
}

/// A small guided picture in two steps.
pub fn small(prompt: &str) -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: 128, height: 128 },
        num_inference_steps: 2,
        scheduler: SchedulerKind::EulerD,
        ..GenerationInput::new(prompt)
    }
}

/// Draws it from begin to finish; the size of each picture.
fn draw(pipeline: &mut Pipeline, input: &GenerationInput) -> Vec<ImageSize> {
    pipeline.draw(input, 7).unwrap().into_iter().map(|picture| picture.image.size()).collect()
}

/// Text, two chunks of text, several pictures, an odd size; a picture to start from, and one to repaint.
fn draw_all(pipeline: &mut Pipeline) {
    let long = format!("a red heart {}", "and a blue star ".repeat(25));
    let picture = pipeline.draw(&small("a red heart"), 7).map(|mut pictures| pictures.remove(0).png);
    let picture = || Some(ImageSource::Bytes(picture.as_ref().unwrap().as_slice().into()));
    // Latents of 9×13, on models that take multiples of 8; the nearest size on others.
    let grid = pipeline.model().rules().grid;
    let side = |latents: u32| (8 * latents).next_multiple_of(grid);
    let odd = ImageSize { width: side(13), height: side(9) };
    let mut inputs = vec![
        small(&long),
        GenerationInput { num_outputs: 3, ..small("a red heart") },
        GenerationInput { guidance_scale: 1.0, ..small("a red heart") },
        GenerationInput { size: odd, ..small("a red heart") },
    ];
    if pipeline.model().rules().takes_images {
        inputs.push(GenerationInput { init_image: picture(), ..small("a red heart") });
        inputs.push(GenerationInput { init_image: picture(), mask: picture(), ..small("a red heart") });
    }
    for input in inputs {
        assert_eq!(draw(pipeline, &input), vec![input.size; input.num_outputs as usize]);
    }
}

/// tiny-sd in one file, under the names of original checkpoints.
fn checkpoint(folder: &Path) -> PathBuf {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    let names: Value = serde_json::from_str(include_str!("../golden/ldm_names.json")).unwrap();
    let parts = [
        ("text_encoder", "model.fp16.safetensors"),
        ("unet", "diffusion_pytorch_model.fp16.safetensors"),
        ("vae", "diffusion_pytorch_model.fp16.safetensors"),
    ];
    let files = parts.map(|(part, file)| (part, fs::read(model.join(part).join(file)).unwrap()));
    let mut tensors: BTreeMap<&str, TensorView<'_>> = BTreeMap::new();
    for (part, bytes) in &files {
        for (name, view) in SafeTensors::deserialize(bytes).unwrap().tensors() {
            let original = names["tiny-sd"][format!("{part}/{name}")].as_str().unwrap();
            tensors.insert(original, view);
        }
    }
    let path = folder.join("heart.safetensors");
    serialize_to_file(tensors, None, &path).unwrap();
    path
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn the_built_in_model_draws_on_every_architecture() {
    on_cards(&ARCHITECTURES, |_| draw_all(&mut load(None, &runtime())));
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_checkpoint_and_a_diffusers_folder_draw_wholly_on_the_card() {
    on_cards(&[USUAL], |_| {
        let folder = tempfile::tempdir().unwrap();
        let diffusers = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
        for path in [checkpoint(folder.path()), diffusers] {
            let profiles = tempfile::tempdir().unwrap();
            draw_all(&mut load(Some(&path), &runtime().with_profiles(profiles.path())));
            Placement::read(profiles.path()).assert_wholly_on_card(&path.display().to_string());
        }
    });
}

/// What ONNX Runtime keeps on the CPU of exported graphs: sizes, which kernels want to know before they are launched.
const SIZES: [&str; 17] = [
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Equal",
    "Expand",
    "Gather",
    "Mul",
    "Range",
    "Reshape",
    "Shape",
    "Slice",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Unsqueeze",
    "Where",
];
/// How many nodes that is, in all parts of a model of tiny-sd's architecture together.
const SIZES_AT_MOST: usize = 372;
/// How often a size goes to the card, as a factor of attention. Nothing goes the other way between two nodes, which
/// would wait for the card.
const SIZES_TO_CARD_AT_MOST: usize = 14;

#[test]
#[ignore = "needs tests/cuda/install"]
fn exported_folders_draw_on_the_card_with_sizes_alone_on_the_cpu() {
    on_cards(&[75, USUAL, 120], |_| {
        for (name, folder) in [
            ("plain", Folder::tiny_sd()),
            ("diffusers' script", Folder::diffusers_legacy()),
            ("optimum", Folder::optimum()),
            ("olive", Folder::olive()),
            ("unpaint", Folder::unpaint()),
            ("inpainting", Folder::inpainting()),
        ] {
            let profiles = tempfile::tempdir().unwrap();
            draw_all(&mut load(Some(folder.path()), &runtime().with_profiles(profiles.path())));
            let placement = Placement::read(profiles.path());
            let strange: Vec<_> =
                placement.elsewhere.keys().filter(|kind| !SIZES.contains(&kind.as_str())).collect();
            assert!(strange.is_empty(), "{name}: {strange:?} on the CPU");
            let on_cpu: usize = placement.elsewhere.values().sum();
            assert!(on_cpu <= SIZES_AT_MOST, "{name}: {on_cpu} nodes on the CPU, {:?}", placement.elsewhere);
            let copies =
                ["MemcpyFromHost", "MemcpyToHost"].map(|kind| placement.on_card.get(kind).unwrap_or(&0));
            assert!(*copies[0] <= SIZES_TO_CARD_AT_MOST && *copies[1] == 0, "{name}: {copies:?}");
        }
    });
}
