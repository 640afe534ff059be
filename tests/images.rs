//! Pictures that start from pictures, drawn by the built-in model.
//!
//! `tests/reference.rs` compares them with the reference. These tests check what a user may rely on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use stablehand::diffusion::{Model, Picture, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, ImageSource, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

thread_local! {
    static PIPELINE: RefCell<Pipeline> = RefCell::new({
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        Model::open(None, None).unwrap().load(&runtime).unwrap()
    });
}

const SIDE: u32 = 128;

fn draw(input: &GenerationInput, seed: u64) -> Vec<Picture> {
    PIPELINE.with_borrow_mut(|pipeline| pipeline.draw(input, seed).unwrap())
}

fn png(image: RgbImage) -> ImageSource {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    ImageSource::from_bytes(bytes.into_inner()).unwrap()
}

/// A picture by the model itself, so that its encoder knows such pictures.
fn heart() -> RgbImage {
    let input = GenerationInput { scheduler: SchedulerKind::EulerD, ..from("a red heart", None) };
    let picture = draw(&input, 7).remove(0).image;
    RgbImage::from_raw(picture.width, picture.height, picture.pixels).unwrap()
}

fn from(prompt: &str, init_image: Option<ImageSource>) -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: SIDE, height: SIDE },
        num_inference_steps: 20,
        guidance_scale: 5.0,
        scheduler: SchedulerKind::EulerD,
        init_image,
        ..GenerationInput::new(prompt)
    }
}

/// White in the right half.
fn right_half(width: u32, height: u32) -> ImageSource {
    png(RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([0; 3]) } else { Rgb([255; 3]) }))
}

/// The mean distance of two pictures' bytes over the columns that `inside` chooses.
fn distance(picture: &Picture, other: &RgbImage, inside: impl Fn(u32) -> bool) -> f64 {
    assert_eq!((picture.image.width, picture.image.height), other.dimensions());
    let columns = (0..).flat_map(|at| [at % other.width(); 3]);
    let pairs = picture.image.pixels.iter().zip(other.as_raw()).zip(columns);
    let chosen: Vec<f64> =
        pairs.filter(|(_, x)| inside(*x)).map(|((a, b), _)| f64::from(a.abs_diff(*b))).collect();
    chosen.iter().sum::<f64>() / f64::from(u32::try_from(chosen.len()).unwrap())
}

#[test]
fn prompt_strength_says_how_much_of_the_picture_changes() {
    let heart = heart();
    let at = |prompt_strength| {
        let input = GenerationInput { prompt_strength, ..from("a green tree", Some(png(heart.clone()))) };
        distance(&draw(&input, 3)[0], &heart, |_| true)
    };
    // This model decides what it draws in its last steps.
    let distances = [0.0, 0.05, 0.1, 1.0].map(at);
    assert!(distances[0] < 4.0, "strength 0 is the picture itself: {distances:?}");
    assert!(distances.is_sorted(), "{distances:?}");
    assert!(distances[3] > distances[0] + 10.0, "{distances:?}");
}

#[test]
fn guidance_may_end_early_in_a_start_from_a_picture_but_does_not_begin_ended() {
    let heart = heart();
    let drawn = |guidance_end, guidance_scale| {
        let start = from("a green tree", Some(png(heart.clone())));
        let input = GenerationInput { prompt_strength: 0.3, guidance_end, guidance_scale, ..start };
        draw(&input, 3).remove(0).image.pixels
    };
    let unguided = drawn(1.0, 1.0);
    assert_ne!(drawn(0.7, 5.0), unguided, "the last 6 of 20 steps, 4 of them guided");
    assert_ne!(drawn(0.7, 5.0), drawn(1.0, 5.0));
    assert_eq!(drawn(0.0, 5.0), unguided);
}

#[test]
fn white_is_repainted_and_black_kept() {
    let heart = heart();
    let (left, right) = (|x: u32| x < SIDE / 2 - 8, |x: u32| x >= SIDE / 2 + 8);
    let masked = GenerationInput {
        mask: Some(right_half(SIDE, SIDE)),
        prompt_strength: 1.0,
        ..from("a green tree on a blue background", Some(png(heart.clone())))
    };
    let picture = &draw(&masked, 3)[0];
    assert!(distance(picture, &heart, left) < 10.0, "{}", distance(picture, &heart, left));
    assert!(distance(picture, &heart, right) > 20.0, "{}", distance(picture, &heart, right));

    let picture = &draw(&GenerationInput { mask_invert: true, ..masked.clone() }, 3)[0];
    assert!(distance(picture, &heart, right) < 10.0);
    assert!(distance(picture, &heart, left) > 20.0);

    // The overlay restores the kept pixels exactly, except at the faded edge.
    let laid_over = GenerationInput { mask_blur: Some(2), mask_invert: false, ..masked.clone() };
    let picture = &draw(&laid_over, 3)[0];
    assert!(distance(picture, &heart, left) < f64::EPSILON);
    assert!(distance(picture, &heart, right) > 20.0);

    // A mask of another size is stretched over the picture.
    let of_another_size = GenerationInput { mask: Some(right_half(10, 300)), ..masked.clone() };
    assert_eq!(draw(&of_another_size, 3)[0].image.pixels, draw(&masked, 3)[0].image.pixels);
}

#[test]
fn a_picture_of_any_size_is_stretched_to_the_requested_size() {
    let dot = png(RgbImage::from_pixel(1, 1, Rgb([52, 110, 220])));
    let small = GenerationInput { prompt_strength: 0.0, ..from("a house", Some(dot)) };
    let blue = RgbImage::from_pixel(SIDE, SIDE, Rgb([52, 110, 220]));
    let drawn = distance(&draw(&small, 1)[0], &blue, |_| true);
    assert!(drawn < 8.0, "{drawn}");

    // Above the size that the model draws well, the picture is enlarged.
    let large = GenerationInput { size: ImageSize { width: 512, height: 256 }, ..small };
    let image = &draw(&large, 1)[0].image;
    assert_eq!((image.width, image.height), (512, 256));
}

#[test]
fn the_reported_seed_draws_an_image_again_alone() {
    for (mask, scheduler) in [(None, SchedulerKind::EulerA), (Some(right_half(64, 64)), SchedulerKind::Ddpm)]
    {
        let several = GenerationInput {
            num_outputs: 3,
            num_inference_steps: 5,
            scheduler,
            mask,
            ..from("a butterfly", Some(png(heart())))
        };
        let alone = GenerationInput { num_outputs: 1, ..several.clone() };
        for picture in draw(&several, 40) {
            assert_eq!(
                draw(&alone, picture.seed)[0].image.pixels,
                picture.image.pixels,
                "{scheduler} {}",
                picture.seed
            );
        }
    }
}

#[test]
fn progress_counts_the_steps_that_are_made() {
    let progress = |prompt_strength| {
        let input = GenerationInput { prompt_strength, ..from("a house", Some(right_half(8, 8))) };
        PIPELINE.with_borrow_mut(|pipeline| {
            let mut generation = pipeline.begin(&input, 1).unwrap();
            let before = generation.progress();
            pipeline.step(&mut [&mut generation]).unwrap();
            (before, generation.progress())
        })
    };
    assert_eq!(progress(0.6), ((0, 12), (1, 12)));
    assert_eq!(progress(0.0), ((0, 0), (0, 0)));
}

#[test]
fn a_picture_that_was_not_fetched_is_an_error() {
    let input = from("a house", Some(ImageSource::Url("http://localhost/fox.png".parse().unwrap())));
    let error = PIPELINE.with_borrow_mut(|pipeline| pipeline.begin(&input, 1).err().unwrap());
    assert_eq!(error.to_string(), "the picture to start from was not fetched");
}
