//! A UNet that takes the mask and the masked picture draws what diffusers' inpaint pipeline draws with it.

use ndarray::Array4;
use serde::Deserialize;
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};

use crate::drawing::load;
use crate::folders::Folder;
use crate::pictures::{distance, start_mask, start_picture};

#[derive(Deserialize)]
struct Table {
    prompt: String,
    negative_prompt: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    mode: String,
    scheduler: String,
    strength: f64,
    width: u32,
    height: u32,
    steps: u32,
    seed: u64,
    guidance_scale: f32,
    latents: Vec<f32>,
}

#[test]
fn an_inpainting_unet_sees_the_mask_and_what_is_kept() {
    let table: Table = serde_json::from_str(include_str!("../golden/pipelines/inpainting.json")).unwrap();
    let mut pipeline = load(&Folder::inpainting()).unwrap();
    for case in table.cases {
        let inpaints = case.mode == "inpaint";
        let input = GenerationInput {
            negative_prompt: table.negative_prompt.clone(),
            size: ImageSize { width: case.width, height: case.height },
            num_inference_steps: case.steps,
            guidance_scale: case.guidance_scale,
            scheduler: SchedulerKind::parse(&case.scheduler).unwrap().0,
            init_image: inpaints.then(|| start_picture(case.width, case.height)),
            mask: inpaints.then(|| start_mask(case.width, case.height)),
            prompt_strength: case.strength,
            ..GenerationInput::new(&table.prompt)
        };
        let mut generation = pipeline.begin(&input, case.seed).unwrap();
        while !generation.is_done() {
            pipeline.step(&mut [&mut generation]).unwrap();
        }
        let shape = generation.latents().dim();
        let theirs = Array4::from_shape_vec(shape, case.latents).unwrap();
        let distance = distance(generation.latents(), &theirs);
        assert!(distance <= 1e-3, "{} {} {}: {distance:e}", case.mode, case.scheduler, case.strength);
    }
}
