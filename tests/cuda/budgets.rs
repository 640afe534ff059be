//! What a step may do in the steady state, when its shape has been seen before.
//!
//! The numbers are what was counted, so that what makes a step do more is noticed. To lower them is welcome.

use stablehand::domain::GenerationInput;

use crate::card::{Card, Counts, USUAL, on_cards};
use crate::forms::{load, runtime, small};
use crate::graphs::Graphs;

/// How much of each at most.
struct Budget([(&'static str, u64); 11]);

impl Budget {
    #[track_caller]
    fn check(&self, counts: &Counts, what: &str) {
        let beyond: Vec<_> = self.0.into_iter().filter(|(name, most)| counts.get(name) > *most).collect();
        assert!(beyond.is_empty(), "{what} goes beyond {beyond:?}: {counts:?}");
    }
}

/// Of the deep feature of Stable Diffusion v1's UNet.
const DEEP_CHANNELS: u64 = 320;

/// Of Stable Diffusion v1's UNet for one guided picture of 512×512. The copies are latents, timesteps and embeddings, the
/// prediction and the deep feature, which two launches bring into its form. (Jobs leave that on the card.)
const UNET: Budget = Budget([
    ("launches", 288),
    ("multiplications", 184),
    ("executions", 168),
    ("plans", 4),
    ("allocations", 0),
    ("pinned", 0),
    ("to card", 3),
    ("to card bytes", 2 * 4 * (4 * 64 * 64 + 1 + 77 * 768)),
    ("to host", 2),
    ("to host bytes", 2 * 4 * (4 + DEEP_CHANNELS) * 64 * 64),
    ("within card", 0),
]);

/// Of a step of the built-in model, for one guided picture or for four: one replay, and the latents, timesteps and
/// prediction are copied. Each goes through a second place on the card, where `ort` copies it.
const fn step(pictures: u64) -> Budget {
    Budget([
        ("launches", 0),
        ("multiplications", 0),
        ("executions", 0),
        ("replays", 1),
        ("plans", 0),
        ("allocations", 0),
        ("pinned", 0),
        ("to card bytes", pictures * 2 * 4 * (4 * 16 * 16 + 1)),
        ("to host", 1),
        ("to host bytes", pictures * 2 * 4 * 4 * 16 * 16),
        ("within card", 3),
    ])
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_unet_call_of_a_known_shape_stays_within_its_budget() {
    on_cards(&[USUAL], |card| {
        let graphs = Graphs::all();
        let unet = graphs.named("sd-v1/unet.cuda.onnx");
        let mut session = graphs.session(unet, &runtime());
        let shape = [2, 64, 64, 77];
        unet.run(&mut session, shape);
        let (counts, ()) = card.count(|| unet.run(&mut session, shape));
        UNET.check(&counts, "a UNet call");
    });
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_step_of_a_known_shape_stays_within_its_budget() {
    on_cards(&[USUAL], |card| {
        let mut pipeline = load(None, &runtime());
        for pictures in [1, 4] {
            let input =
                GenerationInput { num_inference_steps: 5, num_outputs: pictures, ..small("a red heart") };
            let mut generation = pipeline.begin(&input, 7).unwrap();
            // The first step makes plans and grows the memory.
            pipeline.step(&mut [&mut generation]).unwrap();
            while !generation.is_done() {
                let (counts, ()) = card.count(|| pipeline.step(&mut [&mut generation]).unwrap());
                step(pictures.into()).check(&counts, &format!("a step of {pictures}"));
            }
        }
    });
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_second_picture_of_a_size_takes_no_more_memory() {
    on_cards(&[USUAL], |card: Card| {
        let mut pipeline = load(None, &runtime());
        let mut draw = || {
            let mut generation = pipeline.begin(&small("a red heart"), 7).unwrap();
            while !generation.is_done() {
                pipeline.step(&mut [&mut generation]).unwrap();
            }
            pipeline.finish(&generation).unwrap();
        };
        draw();
        let (counts, ()) = card.count(draw);
        assert_eq!((counts.get("allocations"), counts.get("held")), (0, 0), "{counts:?}");
    });
}
