//! An InstructPix2Pix model changes a picture as diffusers' pipeline does with it.

use std::fs;
use std::path::Path;

use half::f16;
use ndarray::Array4;
use serde::Deserialize;
use serde_json::json;
use stablehand::diffusion::Pipeline;
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use tempfile::TempDir;

use crate::check::check;
use crate::checkpoints::{FILES, component, diffusers_folder, pipeline, write};
use crate::onnx::{Entry, Model, port};
use crate::pictures::{distance, start_picture};

#[derive(Deserialize)]
struct Table {
    prompt: String,
    negative_prompt: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    scheduler: String,
    width: u32,
    height: u32,
    steps: u32,
    seed: u64,
    guidance_scale: f32,
    image_guidance_scale: f32,
    latents: Vec<f32>,
}

/// The channels of noise, then those of the picture.
const CHANNELS: usize = 4;
/// Values of a kernel.
const KERNEL: usize = 9;

/// The built-in model with the four more channels of pix2pix.py, and with a graph for them.
fn folder() -> TempDir {
    let folder = diffusers_folder();
    let mut unet = component("unet", FILES[1].1);
    let conv_in = unet.get_mut("conv_in.weight").unwrap();
    let outputs = conv_in.shape[0];
    let usual: Vec<&[u8]> = conv_in.bytes.chunks_exact(2 * CHANNELS * KERNEL).collect();
    let mut numbers = 0_u32..;
    let mut more = || {
        let values = numbers.by_ref().take(CHANNELS * KERNEL);
        let value = |n: u32| (f64::from(n * 7919 % 1009) / 1009.0 - 0.5) * 0.2;
        values.flat_map(|n| f16::from_f64(value(n)).to_le_bytes()).collect::<Vec<_>>()
    };
    conv_in.bytes = usual.into_iter().flat_map(|usual| [usual.to_vec(), more()].concat()).collect();
    conv_in.shape[1] = 2 * CHANNELS;
    write(&unet, &folder.path().join("unet").join(FILES[1].1));
    write_graph(&folder.path().join("graphs"), outputs);
    for (file, key, value) in [
        ("unet/config.json", "in_channels", json!(8)),
        ("model_index.json", "_class_name", json!("StableDiffusionInstructPix2PixPipeline")),
    ] {
        let path = folder.path().join(file);
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
    }
    folder
}

/// The UNet's graph with a larger first convolution. Its weight lies behind all others.
fn write_graph(graphs: &Path, outputs: usize) {
    let mut model = Model::read(&graphs.join("unet.cpu.onnx"));
    let graph = model.graph();
    let number = |tensor: &[Entry], key: &str| -> usize {
        let entry = tensor.iter().find(|entry| entry.key.as_deref() == Some(key));
        entry.and_then(|entry| entry.value.as_deref()).map_or(0, |value| value.parse().unwrap())
    };
    let ends = graph
        .initializers
        .iter()
        .map(|t| number(&t.external_data, "offset") + number(&t.external_data, "length"));
    let end = ends.max().unwrap().next_multiple_of(64);
    let conv_in = graph
        .initializers
        .iter_mut()
        .find(|tensor| tensor.name.as_deref() == Some("conv_in.weight"))
        .unwrap();
    conv_in.dims[1] = 8;
    for entry in &mut conv_in.external_data {
        match entry.key.as_deref() {
            Some("offset") => entry.value = Some(end.to_string()),
            Some("length") => entry.value = Some((outputs * 2 * CHANNELS * KERNEL * 4).to_string()),
            _ => {}
        }
    }
    let sample = graph.inputs.iter_mut().find(|input| input.name.as_deref() == Some("sample")).unwrap();
    *sample = port("sample", crate::onnx::FLOAT, &["batch", "8", "height", "width"]);
    model.write(&graphs.join("unet_pix2pix.cpu.onnx"));
}

fn table() -> Table {
    serde_json::from_str(include_str!("../golden/pipelines/pix2pix.json")).unwrap()
}

impl Table {
    fn input(&self, case: &Case) -> GenerationInput {
        GenerationInput {
            negative_prompt: self.negative_prompt.clone(),
            size: ImageSize { width: case.width, height: case.height },
            num_inference_steps: case.steps,
            guidance_scale: case.guidance_scale,
            image_guidance_scale: Some(case.image_guidance_scale),
            scheduler: SchedulerKind::parse(&case.scheduler).unwrap().0,
            init_image: Some(start_picture(case.width, case.height)),
            ..GenerationInput::new(&self.prompt)
        }
    }
}

/// Draws all at once, so that guided and unguided pictures share UNet calls where they can.
fn draw(pipeline: &mut Pipeline, inputs: &[(GenerationInput, u64)]) -> Vec<Array4<f32>> {
    let mut batch: Vec<_> =
        inputs.iter().map(|(input, seed)| pipeline.begin(input, *seed).unwrap()).collect();
    while batch.iter().any(|generation| !generation.is_done()) {
        pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
    }
    batch.iter().map(|generation| generation.latents().clone()).collect()
}

#[test]
fn a_picture_is_changed_as_diffusers_changes_it() {
    let (folder, table) = (folder(), table());
    let inputs: Vec<_> = table.cases.iter().map(|case| (table.input(case), case.seed)).collect();
    for images_per_call in [1, 8] {
        let mut pipeline = pipeline(folder.path()).unwrap().with_images_per_call(images_per_call);
        assert!(pipeline.model().rules().edits_images);
        for (ours, case) in draw(&mut pipeline, &inputs).iter().zip(&table.cases) {
            let theirs = Array4::from_shape_vec(ours.dim(), case.latents.clone()).unwrap();
            let distance = distance(ours, &theirs);
            let scales = (case.guidance_scale, case.image_guidance_scale);
            assert!(
                distance <= 1e-3,
                "{} {scales:?}, {images_per_call} a call: {distance:e}",
                case.scheduler
            );
        }
    }
}

#[test]
fn the_picture_s_text_says_how_it_was_changed() {
    let (folder, table) = (folder(), table());
    let mut pipeline = pipeline(folder.path()).unwrap();
    let input = GenerationInput { num_inference_steps: 1, ..table.input(&table.cases[0]) };
    let png = pipeline.draw(&input, 1).unwrap().remove(0).png;
    let text = String::from_utf8_lossy(&png);
    assert!(text.contains("Image CFG scale: 1.5") && !text.contains("Denoising strength"));
    assert!(text.contains("\"image_guidance_scale\":1.5") && !text.contains("prompt_strength"));
    // A guided picture has three rows.
    let input = GenerationInput { size: ImageSize { width: 256, height: 256 }, ..input };
    let memory = |input: &GenerationInput| pipeline.memory_for(&[input]);
    assert!(memory(&input) > memory(&GenerationInput { image_guidance_scale: None, ..input.clone() }));
}

#[test]
fn models_check_says_what_it_is_for() {
    let folder = folder();
    let (code, stdout, stderr) = check(folder.path());
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let found: Vec<_> =
        stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let no = "no: it is an InstructPix2Pix model, which changes a picture as the prompt says";
    for line in [
        format!("text to image {no}"),
        "image to image yes, as the prompt says (InstructPix2Pix)".to_owned(),
        format!("inpainting {no}"),
    ] {
        assert!(found.contains(&line), "no '{line}' in:\n{stdout}");
    }
}
