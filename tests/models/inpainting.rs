//! A UNet that takes the mask and the masked picture draws what diffusers' inpaint pipeline draws with it.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use ndarray::Array4;
use serde::Deserialize;
use serde_json::json;
use stablehand::diffusion::{Model, decode_image};
use stablehand::domain::{GenerationInput, ImageSize, ImageSource, InpaintArea, Inpainting, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use crate::drawing::{load, psnr};
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

#[derive(Deserialize)]
struct MaskedAreas {
    prompt: String,
    negative_prompt: String,
    picture: (u32, u32),
    cases: Vec<MaskedArea>,
}

#[derive(Deserialize)]
struct MaskedArea {
    kind: String,
    scheduler: String,
    strength: f64,
    size: (u32, u32),
    /// Left, top, right and bottom of the mask.
    r#box: [u32; 4],
    padding: u32,
    steps: u32,
    seed: u64,
    guidance_scale: f32,
    png: String,
}

fn masked_area_mask((width, height): (u32, u32), [left, top, right, bottom]: [u32; 4]) -> ImageSource {
    let is_white = |x, y| (left..right).contains(&x) && (top..bottom).contains(&y);
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([if is_white(x, y) { 255 } else { 0 }; 3]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    ImageSource::from_bytes(bytes.into_inner()).unwrap()
}

/// diffusers' `padding_mask_crop`, which is A1111's "Only masked". `masked_area.py` drew the pictures.
#[test]
fn the_masked_area_alone_is_drawn_as_by_diffusers() {
    let table: MaskedAreas =
        serde_json::from_str(include_str!("../golden/pipelines/masked_area.json")).unwrap();
    let mut plain =
        Model::open(None, None).unwrap().load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
    let mut nine_channels = load(&Folder::inpainting()).unwrap();
    for case in table.cases {
        let pipeline = if case.kind == "unet9" { &mut nine_channels } else { &mut plain };
        let input = GenerationInput {
            negative_prompt: table.negative_prompt.clone(),
            size: ImageSize { width: case.size.0, height: case.size.1 },
            num_inference_steps: case.steps,
            guidance_scale: case.guidance_scale,
            scheduler: SchedulerKind::parse(&case.scheduler).unwrap().0,
            init_image: Some(start_picture(table.picture.0, table.picture.1)),
            mask: Some(masked_area_mask(table.picture, case.r#box)),
            prompt_strength: case.strength,
            inpainting: Inpainting {
                area: InpaintArea::Masked,
                padding: case.padding,
                ..Inpainting::default()
            },
            ..GenerationInput::new(&table.prompt)
        };
        let picture = pipeline.draw(&input, case.seed).unwrap().remove(0).image;
        let path = format!("{}/tests/golden/pipelines/{}", env!("CARGO_MANIFEST_DIR"), case.png);
        let golden = image::open(path).unwrap().into_rgb8();
        assert_eq!((picture.width, picture.height), golden.dimensions());
        let likeness = psnr(&picture.pixels, golden.as_raw());
        println!("{}: {likeness:.1} dB", case.png);
        assert!(likeness >= 50.0, "{}: {likeness:.1} dB", case.png);
        let [left, top, right, bottom] = case.r#box;
        let places = (0..).map(|at| (at % picture.width, at / picture.width));
        let outside = |(x, y)| !(left..right).contains(&x) || !(top..bottom).contains(&y);
        for (place, (ours, theirs)) in
            places.zip(picture.pixels.chunks(3).zip(golden.as_raw().chunks(3))).filter(|(at, _)| outside(*at))
        {
            assert_eq!(ours, theirs, "{} at {place:?}", case.png);
        }
    }
}

#[test]
fn an_inpainting_unet_sees_the_mask_in_both_passes() {
    let mut pipeline = load(&Folder::inpainting()).unwrap();
    let hires = json!({"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 3, "mask_blur": 1,
        "hires": {"scale": 2, "strength": 0.7}});
    let plain = GenerationInput::parse(&hires, pipeline.model().rules()).unwrap();
    let (width, height) = (96, 96);
    let mask = masked_area_mask((width, height), [24, 24, 72, 72]);
    let masked = GenerationInput {
        init_image: Some(start_picture(width, height)),
        mask: Some(mask.clone()),
        ..plain.clone()
    };
    let mut draw = |input: &GenerationInput| pipeline.draw(input, 5).unwrap().remove(0).image;
    let drawn = draw(&masked);
    assert_eq!(drawn.size(), ImageSize { width: 128, height: 128 });
    let ImageSource::Bytes(original) = start_picture(width, height) else { panic!("it has bytes") };
    let enlarged = decode_image(&original).unwrap().resize(drawn.size()).unwrap();
    // A blur of 1 and the filter reach five pixels at most.
    let is_kept = |at: u32| !(27..101).contains(&at);
    let mut places = (0..).map(|at| (at % 128, at / 128));
    let pixels = drawn.pixels.chunks(3).zip(enlarged.pixels.chunks(3));
    for ((ours, theirs), (x, y)) in pixels.zip(places.by_ref()) {
        assert!(ours == theirs || !is_kept(x) && !is_kept(y), "{x} {y}");
    }
    // Without blur, the rest is what the UNet made of the picture that it saw. It saw another one, or none.
    let unblended = GenerationInput { mask_blur: None, ..masked.clone() };
    let other = GenerationInput { init_image: Some(mask), ..unblended.clone() };
    let drawn = [&unblended, &other, &plain].map(&mut draw);
    assert!(drawn[0] != drawn[1] && drawn[0] != drawn[2]);
}
