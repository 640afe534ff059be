//! What jobs take together.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat};
use serde_json::json;

use super::super::Model;
use super::*;
use crate::domain::{Hires, ImageSource, InpaintArea, Inpainting, Lora, LoraOrigin, Variation};
use crate::runtime::{DeviceChoice, Runtime};

fn input(side: u32, num_outputs: u32, loras: &[&str]) -> GenerationInput {
    let lora = |name: &&str| Lora {
        name: (*name).to_owned(),
        unet: 1.0,
        text_encoder: 1.0,
        blocks: None,
        origin: LoraOrigin::Field,
    };
    GenerationInput {
        size: ImageSize { width: side, height: side },
        num_outputs,
        loras: loras.iter().map(lora).collect(),
        ..GenerationInput::new("a fox")
    }
}

#[test]
fn tiles_and_results_of_another_size_take_what_they_need() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap();
    let needs = pipeline.memory_needs;
    let usual = needs.usual_size();
    let plain = input(usual.width, 1, &[]);
    let further = |job: &GenerationInput| pipeline.memory_for(&[job]) - pipeline.memory_for(&[&plain]);

    let tile =
        GenerationInput { variation: Variation { tiling: true, ..Variation::default() }, ..plain.clone() };
    let rimmed = ImageSize { width: usual.width + 128, height: usual.height + 128 };
    let both = |size| needs.unet(size, 2) + needs.vae(size);
    assert_eq!(further(&tile), both(rimmed) - both(usual));

    let mut file = Cursor::new(Vec::new());
    DynamicImage::new_rgb8(1000, 800).write_to(&mut file, ImageFormat::Png).unwrap();
    let masked = GenerationInput {
        init_image: Some(ImageSource::from_bytes(file.into_inner()).unwrap()),
        inpainting: Inpainting { area: InpaintArea::Masked, ..Inpainting::default() },
        ..plain.clone()
    };
    let pictures = |width, height| needs.pictures(ImageSize { width, height }, 1);
    let more = pictures(1000, 800) - pictures(usual.width, usual.height);
    assert_eq!(further(&masked), more);
    assert_eq!(further(&masked.without_pictures()), more, "also while it is drawn");
}

#[test]
fn a_job_takes_its_encoded_prompts_as_well() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap();
    let texts = |prompt: &str| pipeline.encoded_prompts(&GenerationInput::new(prompt));
    let chunk = 77 * 160 * 4;
    assert_eq!(texts("a fox"), 2 * chunk, "with the negative prompt");
    assert_eq!(texts("a fox AND a cat BREAK snow"), 5 * chunk);
    assert_eq!(texts("a [fox:cat:0.5]"), 51 * chunk, "a text for each step");
    assert_eq!(texts(&"[a|b] BREAK ".repeat(100)), 256 * chunk, "as many as are encoded");
    let idle = pipeline.memory_for(&[]);
    let job = input(pipeline.memory_needs.usual_size().width, 1, &[]);
    assert_eq!(pipeline.memory_for(&[&job]), idle + 2 * chunk);
}

#[test]
fn a_picture_that_is_cut_between_two_passes_is_encoded_whole() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap();
    let needs = pipeline.memory_needs;
    let hires = json!({"width": 64, "height": 1024, "upscaler": "lanczos"});
    let request = json!({"prompt": "a fox", "width": 128, "height": 128, "hires": hires});
    let job = GenerationInput::parse(&request, pipeline.model().rules()).unwrap();
    let covers = ImageSize { width: 1024, height: 1024 };
    assert_eq!(job.hires.as_ref().unwrap().target.covers, covers);
    let latent = GenerationInput {
        hires: job.hires.clone().map(|hires| Hires { upscaler: Upscaler::LATENT, ..hires }),
        ..job.clone()
    };
    let kept = [latent.result_size(), latent.size].map(|size| needs.vae(size)).into_iter().max().unwrap();
    let further = pipeline.memory_for(&[&job]) - pipeline.memory_for(&[&latent]);
    assert_eq!(further, needs.vae(covers) - kept.max(needs.vae(needs.usual_size())));
}

#[test]
fn jobs_take_what_their_largest_call_takes_and_each_set_of_loras_its_own() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap().with_images_per_call(4);
    let needs = pipeline.memory_needs;
    let idle = pipeline.memory_for(&[]);
    assert_eq!(idle, needs.usual(2));
    let side = needs.usual_size().width;
    let (small, large) = (input(side / 2, 1, &[]), input(side, 1, &[]));
    let unet = |rows: u64| needs.unet(needs.usual_size(), rows);
    let beside = |jobs: &[&GenerationInput]| {
        let pictures: u64 = jobs.iter().map(|job| needs.pictures(job.size, job.num_outputs.into())).sum();
        let texts: u64 = jobs.iter().map(|job| pipeline.encoded_prompts(job)).sum();
        pipeline.memory_for(jobs) - needs.weights() - pictures - texts - needs.vae(needs.usual_size())
    };
    assert_eq!(beside(&[&large]), unet(2));
    assert_eq!(beside(&[&large, &small]), unet(2), "one after the other");
    assert_eq!(beside(&[&large, &large]), unet(4), "in one call");
    assert_eq!(beside(&[&input(side, 9, &[])]), unet(8), "as many as a call takes");
    let (fox, ink) = (input(side, 2, &["fox"]), input(side, 2, &["ink"]));
    let further = unet(4) - unet(2);
    assert_eq!(beside(&[&fox, &ink]), unet(2) + 2 * further);
    assert_eq!(beside(&[&fox, &input(side / 2, 1, &["fox"])]), unet(2) + further);
}

#[test]
fn a_job_that_reuses_deep_features_takes_them_and_the_outer_layers_as_well() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let mut pipeline = Model::open(None, None).unwrap().load(&runtime).unwrap();
    let needs = pipeline.memory_needs;
    let usual = needs.usual_size();
    let plain = input(usual.width, 3, &[]);
    let reusing = GenerationInput { cache_interval: 3, num_inference_steps: 4, ..plain.clone() };
    let more = pipeline.memory_for(&[&reusing]) - pipeline.memory_for(&[&plain]);
    assert_eq!(more, needs.unet_of(Depth::Outer, usual, 2) + needs.deep_features(usual, 6, 2));
    // Its sessions give everything back with their last calls.
    let before = pipeline.memory();
    pipeline.draw(&reusing, 1).unwrap();
    assert_eq!((pipeline.memory(), pipeline.kept.unet), (before, [0; 2]));
}
