//! Every scheduler draws the background that the prompt names.

use std::env;

use serde_json::json;
use stablehand::diffusion::Picture;
use stablehand::domain::{GenerationInput, Sampling, SchedulerKind, Spacing};

use super::{PIPELINE, draw, mean, native};

/// The solid colours that the model was trained on (models/tiny-sd/training/prepare_data.py).
const COLOURS: [(&str, [f32; 3]); 11] = [
    ("white", [255.0, 255.0, 255.0]),
    ("black", [16.0, 16.0, 20.0]),
    ("gray", [140.0, 144.0, 150.0]),
    ("red", [214.0, 48.0, 49.0]),
    ("orange", [245.0, 140.0, 40.0]),
    ("yellow", [250.0, 218.0, 70.0]),
    ("green", [58.0, 170.0, 83.0]),
    ("blue", [52.0, 110.0, 220.0]),
    ("purple", [132.0, 68.0, 190.0]),
    ("pink", [248.0, 160.0, 200.0]),
    ("brown", [125.0, 80.0, 50.0]),
];

/// Prompts, and the colour of the background that each names.
const BACKGROUNDS: [(&str, &str); 12] = [
    ("a star on a purple background", "purple"),
    ("a banana on a pink background", "pink"),
    ("a rocket on a black background", "black"),
    ("a mushroom on a green background", "green"),
    ("a key on a red background", "red"),
    ("a penguin on an orange background", "orange"),
    ("a house on a blue background", "blue"),
    ("a fish on a yellow background", "yellow"),
    ("a cat on a white background", "white"),
    ("a heart on a gray background", "gray"),
    ("a robot on a brown background", "brown"),
    ("a tree on a pink background", "pink"),
];

pub fn nearest_colour(colour: [f32; 3]) -> &'static str {
    let distance = |to: &[f32; 3]| colour.iter().zip(to).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    COLOURS.iter().min_by(|(_, a), (_, b)| distance(a).total_cmp(&distance(b))).unwrap().0
}

#[test]
pub fn the_background_has_the_colour_that_the_prompt_names() {
    for (seed, (prompt, colour)) in (0..).zip(BACKGROUNDS) {
        let picture = &draw(&native(prompt), seed)[0];
        let border = mean(picture, |x, y| x < 4 || y < 4 || x >= 124 || y >= 124);
        assert_eq!(nearest_colour(border), colour, "{prompt}: the border is {border:?}");
    }
}

/// How many of eight pictures have the background that their prompts name, at the contract's defaults: a request with a
/// prompt and a scheduler, and nothing else.
fn right_backgrounds(scheduler: SchedulerKind, seed: u64) -> usize {
    let pictures = PIPELINE.with_borrow_mut(|pipeline| {
        let rules = pipeline.model().rules().clone();
        let begin = |(prompt, _): &(&str, &str)| {
            let request = json!({"prompt": prompt, "scheduler": scheduler.as_str()});
            let input = GenerationInput::parse(&request, &rules).unwrap();
            assert_eq!((input.num_inference_steps, input.size.width), (50, 512));
            pipeline.begin(&input, seed).unwrap()
        };
        let mut batch: Vec<_> = BACKGROUNDS[..8].iter().map(begin).collect();
        while batch.iter().any(|generation| !generation.is_done()) {
            pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
        }
        batch.iter().flat_map(|generation| pipeline.finish(generation).unwrap()).collect::<Vec<_>>()
    });
    let border = |picture: &Picture| mean(picture, |x, y| x < 16 || y < 16 || x >= 496 || y >= 496);
    pictures
        .iter()
        .zip(BACKGROUNDS)
        .filter(|(picture, (_, colour))| nearest_colour(border(picture)) == *colour)
        .count()
}

#[test]
fn the_most_fragile_schedulers_draw_the_backgrounds_at_the_contracts_defaults() {
    for scheduler in [SchedulerKind::KLms, SchedulerKind::Pndm] {
        let right = right_backgrounds(scheduler, 1);
        assert!(right >= 7, "{scheduler}: {right} of 8");
    }
}

/// The samplers as people use them: Karras sigmas and few steps. TCD and LCM are for models that were made for them.
#[test]
fn samplers_of_other_programs_draw_the_backgrounds_with_karras_sigmas() {
    use SchedulerKind as K;
    let kinds = [K::DpmMSde, K::DpmMSdeHeun, K::Dpm3MSde, K::DpmSde, K::Dpm2SA, K::Deis];
    for scheduler in kinds {
        for (seed, (prompt, colour)) in (0..).zip(&BACKGROUNDS[..4]) {
            let sampling = Sampling { spacing: Some(Spacing::Karras), ..Sampling::default() };
            let input = GenerationInput { scheduler, sampling, num_inference_steps: 24, ..native(prompt) };
            let border = mean(&draw(&input, seed)[0], |x, y| x < 4 || y < 4 || x >= 124 || y >= 124);
            assert_eq!(nearest_colour(border), *colour, "{scheduler}: {prompt}: the border is {border:?}");
        }
    }
}

#[test]
fn churn_and_eta_change_the_picture_and_not_the_background() {
    let (prompt, colour) = BACKGROUNDS[0];
    let plain = native(prompt);
    for (scheduler, sampling) in [
        (SchedulerKind::EulerD, Sampling { s_churn: Some(5.0), ..Sampling::default() }),
        (SchedulerKind::Heun, Sampling { s_churn: Some(5.0), ..Sampling::default() }),
        (SchedulerKind::EulerA, Sampling { eta: Some(0.5), ..Sampling::default() }),
        (SchedulerKind::Ddim, Sampling { eta: Some(0.5), ..Sampling::default() }),
    ] {
        let pictures = [Sampling::default(), sampling]
            .map(|sampling| draw(&GenerationInput { scheduler, sampling, ..plain.clone() }, 0).remove(0));
        assert_ne!(pictures[0].image.pixels, pictures[1].image.pixels, "{scheduler}");
        let border = mean(&pictures[1], |x, y| x < 4 || y < 4 || x >= 124 || y >= 124);
        assert_eq!(nearest_colour(border), colour, "{scheduler}: the border is {border:?}");
    }
}

/// Prints a table and holds every scheduler of the contract to it. Run it with `--ignored --nocapture`.
#[test]
#[ignore = "draws five hundred pictures"]
fn every_scheduler_draws_the_backgrounds_at_the_contracts_defaults() {
    // LCM and TCD are for models that were made for them.
    let distilled = [SchedulerKind::Lcm, SchedulerKind::Tcd];
    let of_the_contract = SchedulerKind::ALL.into_iter().filter(|kind| !distilled.contains(kind));
    let seeds = env::var("STABLEHAND_TEST_SEEDS").map_or(5, |seeds| seeds.parse().unwrap());
    let table: Vec<_> = of_the_contract
        .map(|scheduler| {
            let right: Vec<_> = (1..=seeds).map(|seed| right_backgrounds(scheduler, seed)).collect();
            println!("{scheduler:8} {right:?} of 8");
            (scheduler, right)
        })
        .collect();
    for (scheduler, right) in table {
        assert!(right.iter().all(|right| *right >= 7), "{scheduler}: {right:?} of 8");
    }
}
