//! The maps that preprocessors make of pictures.

use std::path::Path;

use ndarray::s;
use stablehand::diffusion::Model;
use stablehand::domain::{ControlResize, GenerationInput, ImageSize, Preprocessor, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use super::controlnets::diffusers;
use super::pictures::distance;
use super::{Studio, golden};

#[test]
fn a_shuffled_picture_is_shuffled_alike_when_one_of_several_is_drawn_again() {
    let mut studio = Studio::new(diffusers);
    let mut input = studio.input(&golden().cases[0]);
    input.controlnets[0].preprocess = Preprocessor::Shuffle;
    let again = input.clone();
    input.num_outputs = 2;
    let pair = studio.draw(&[(input, 7)]).remove(0);
    let again = studio.draw(&[(again, 8)]).remove(0);
    let second = pair.latents().slice(s![1..2, .., .., ..]).to_owned();
    assert!(distance(again.latents(), &second) < 1e-4);
}

/// `STABLEHAND_TEST_PICTURES=DIR` keeps them side by side: that is the picture of `docs/controlnet.md`.
#[test]
fn each_preprocessor_makes_a_map_of_its_own_of_a_drawn_picture() {
    let mut pipeline =
        Model::open(None, None).unwrap().load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
    let size = ImageSize { width: 128, height: 128 };
    let input = GenerationInput {
        size,
        num_inference_steps: 25,
        scheduler: SchedulerKind::DpmM,
        ..GenerationInput::new("a fox")
    };
    let drawn = pipeline.draw(&input, 7).unwrap().remove(0).image;
    let map = |kind: Preprocessor, numbers: [f32; 2]| {
        drawn.preprocess(kind, numbers, ControlResize::Crop, size, 4).unwrap()
    };
    let maps: Vec<_> = Preprocessor::ALL
        .into_iter()
        .map(|kind| match kind {
            Preprocessor::Tile => map(kind, [6.0, 0.0]),
            Preprocessor::Blur => map(kind, [5.0, 0.0]),
            kind => map(kind, kind.thresholds().map(|taken| taken.map_or(0.0, |taken| taken.default))),
        })
        .collect();
    assert_eq!(maps[0], drawn);
    for (index, map) in maps.iter().enumerate() {
        assert!(!maps[..index].contains(map), "{index}");
    }
    if let Some(folder) = std::env::var_os("STABLEHAND_TEST_PICTURES") {
        let mut strip = image::RgbImage::new(size.width * 9, size.height);
        for (at, map) in (0_i64..).zip(maps) {
            let map = image::RgbImage::from_raw(size.width, size.height, map.pixels).unwrap();
            image::imageops::replace(&mut strip, &map, at * i64::from(size.width), 0);
        }
        strip.save(Path::new(&folder).join("controlnet.png")).unwrap();
    }
}
