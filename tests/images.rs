//! Pictures that start from pictures, drawn by the built-in model.
//!
//! `tests/reference.rs` compares them with the reference. These tests check what a user may rely on.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::cell::RefCell;
use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use stablehand::diffusion::{Model, Picture, Pipeline};
use stablehand::domain::{
    GenerationInput, ImageSize, ImageSource, InpaintArea, InpaintFill, Inpainting, Outpaint, ResizeMode,
    SchedulerKind, Variation,
};
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

/// A mask that is white in a box.
fn white_box(width: u32, height: u32, left: u32, right: u32) -> ImageSource {
    png(RgbImage::from_fn(width, height, |x, _| Rgb([if (left..right).contains(&x) { 255 } else { 0 }; 3])))
}

#[test]
fn outpainting_adds_pixels_and_keeps_the_picture() {
    let heart = heart();
    for area in [InpaintArea::Whole, InpaintArea::Masked] {
        let outpaint = Some(Outpaint { left: 48, bottom: 16, ..Outpaint::default() });
        let inpainting =
            Inpainting { area, outpaint, fill: InpaintFill::Surroundings, ..Inpainting::default() };
        let input = GenerationInput {
            inpainting,
            mask_blur: Some(2),
            ..from("a red heart", Some(png(heart.clone())))
        };
        let picture = &draw(&input, 3)[0].image;
        assert_eq!((picture.width, picture.height), (SIDE + 48, SIDE + 16));
        let pixel = |x: u32, y: u32| &picture.pixels[((y * picture.width + x) * 3) as usize..][..3];
        // Two and a half times the blur is drawn again, and as much may fade.
        for (x, y) in (10..SIDE).flat_map(|x| (0..SIDE - 10).map(move |y| (x, y))) {
            assert_eq!(pixel(x + 48, y), heart.get_pixel(x, y).0, "{area:?} {x} {y}");
        }
        // What is added is no frame of repeated edges.
        let column = |x: u32| (0..SIDE).map(|y| pixel(x, y).to_vec()).collect::<Vec<_>>();
        assert_ne!(column(0), column(30), "{area:?}");
    }
}

#[test]
fn only_the_masked_area_of_a_large_picture_changes() {
    let large = RgbImage::from_fn(700, 400, |x, y| {
        let shade = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap();
        Rgb([shade(x, 700), shade(y, 400), 120])
    });
    let input = GenerationInput {
        mask: Some(white_box(700, 400, 300, 360)),
        mask_blur: Some(4),
        inpainting: Inpainting { area: InpaintArea::Masked, ..Inpainting::default() },
        num_outputs: 2,
        ..from("a red heart", Some(png(large.clone())))
    };
    let pictures = draw(&input, 3);
    for picture in &pictures {
        assert!(distance(picture, &large, |x| !(285..375).contains(&x)) < f64::EPSILON);
        assert!(distance(picture, &large, |x| (310..350).contains(&x)) > 4.0);
    }
    assert_ne!(pictures[0].image, pictures[1].image);
    let text = &pictures[0].texts.parameters;
    assert!(text.contains("Mask blur: 4, Inpaint area: Only masked, Masked area padding: 32"), "{text}");
}

#[test]
fn an_empty_mask_draws_the_whole_picture_and_says_so() {
    let heart = png(heart());
    let empty = GenerationInput {
        mask: Some(white_box(9, 9, 0, 0)),
        mask_blur: Some(4),
        inpainting: Inpainting { area: InpaintArea::Masked, ..Inpainting::default() },
        ..from("a green tree", Some(heart.clone()))
    };
    PIPELINE.with_borrow_mut(|pipeline| {
        let generation = pipeline.begin(&empty, 3).unwrap();
        assert_eq!(
            generation.warnings(),
            ["the mask is empty: the whole picture was drawn at the requested size"]
        );
    });
    assert_eq!(draw(&empty, 3)[0].image, draw(&from("a green tree", Some(heart)), 3)[0].image);
}

#[test]
fn each_fill_begins_with_something_else() {
    let filled = |fill| {
        let input = GenerationInput {
            mask: Some(right_half(SIDE, SIDE)),
            prompt_strength: 0.3,
            inpainting: Inpainting { fill, ..Inpainting::default() },
            ..from("a green tree", Some(png(heart())))
        };
        draw(&input, 3).remove(0).image.pixels
    };
    let pictures: Vec<_> = InpaintFill::ALL.into_iter().map(|(_, fill)| filled(fill)).collect();
    for (at, picture) in pictures.iter().enumerate() {
        assert!(pictures[..at].iter().all(|other| other != picture), "{at}");
    }
}

#[test]
fn a_wide_picture_is_cut_framed_or_stretched() {
    // Red, green and blue thirds.
    let thirds = png(RgbImage::from_fn(384, 128, |x, _| {
        Rgb([[230, 40, 40], [40, 200, 60], [50, 60, 220]][(x / 128) as usize])
    }));
    let columns = |resize_mode| {
        let inpainting = Inpainting { resize_mode, ..Inpainting::default() };
        let input =
            GenerationInput { inpainting, prompt_strength: 0.0, ..from("a flag", Some(thirds.clone())) };
        let picture = draw(&input, 3).remove(0).image;
        let strongest = |x: u32| {
            let pixel = &picture.pixels[((64 * picture.width + x) * 3) as usize..][..3];
            (0..3).max_by_key(|&channel| pixel[channel]).unwrap()
        };
        [4, 64, 123].map(strongest)
    };
    assert_eq!(columns(ResizeMode::Stretch), [0, 1, 2]);
    assert_eq!(columns(ResizeMode::Crop), [1, 1, 1]);
    assert_eq!(columns(ResizeMode::Fill), [0, 1, 2]);
    assert_eq!(columns(ResizeMode::Latent), [0, 1, 2]);
}

#[test]
fn a_variation_lies_between_two_seeds() {
    let heart = |variation| GenerationInput { variation, ..from("a butterfly", None) };
    let at = |strength| {
        let variation = Variation { subseed: Some(8), strength, ..Variation::default() };
        draw(&heart(variation), 7).remove(0)
    };
    let own = draw(&heart(Variation::default()), 7).remove(0).image;
    let other = draw(&heart(Variation::default()), 8).remove(0).image;
    assert_eq!(at(0.0).image, own);
    let as_rgb = |image: &stablehand::diffusion::RgbImage| {
        RgbImage::from_raw(image.width, image.height, image.pixels.clone()).unwrap()
    };
    let distances: Vec<f64> = [0.0, 0.1, 0.5]
        .into_iter()
        .map(|strength| distance(&at(strength), &as_rgb(&own), |_| true))
        .collect();
    assert!(distances.is_sorted() && distances[1] > 0.0, "{distances:?}");
    let whole = at(1.0);
    assert!(distance(&whole, &as_rgb(&other), |_| true) < 1.0);
    assert!(whole.texts.parameters.contains("Variation seed: 8, Variation seed strength: 1"));
}

/// How much more neighbours differ across the edge of a tile than within it.
fn seam(image: &stablehand::diffusion::RgbImage) -> f64 {
    let (width, height) = (image.width as usize, image.height as usize);
    let pixel = |x: usize, y: usize| &image.pixels[(y % height * width + x % width) * 3..][..3];
    let step = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>();
    let across = |x: usize| (0..height).map(|y| step(pixel(x, y), pixel(x + 1, y))).sum::<f64>();
    let down = |y: usize| (0..width).map(|x| step(pixel(x, y), pixel(x, y + 1))).sum::<f64>();
    let inside: f64 = (0..width - 1).map(across).sum::<f64>() / f64::from(image.width - 1)
        + (0..height - 1).map(down).sum::<f64>() / f64::from(image.height - 1);
    (across(width - 1) + down(height - 1)) / inside
}

#[test]
fn a_tile_has_no_seam() {
    let drawn = |prompt: &str, tiling, size| {
        let variation = Variation { tiling, ..Variation::default() };
        draw(&GenerationInput { variation, size, ..from(prompt, None) }, 3).remove(0)
    };
    for side in [SIDE, 2 * SIDE] {
        let size = ImageSize { width: side, height: side };
        let seams = |tiling| {
            ["a green leaf", "flowers", "a zebra on a blue background"]
                .map(|prompt| seam(&drawn(prompt, tiling, size).image))
        };
        let (plain, tiled) = (seams(false), seams(true));
        println!("{side}: {plain:?} {tiled:?}");
        assert!(tiled.iter().all(|seam| *seam < 2.0), "{tiled:?}");
    }
    let picture = drawn("flowers", true, ImageSize { width: SIDE, height: SIDE });
    assert!(picture.texts.parameters.contains("Tiling: True"));
}

#[test]
fn a_picture_that_was_not_fetched_is_an_error() {
    let input = from("a house", Some(ImageSource::Url("http://localhost/fox.png".parse().unwrap())));
    let error = PIPELINE.with_borrow_mut(|pipeline| pipeline.begin(&input, 1).err().unwrap());
    assert_eq!(error.to_string(), "the picture to start from was not fetched");
}
