//! A step with ControlNets on the card: the calls of both nets are captured, and the picture to follow is copied once.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stablehand::diffusion::{AddOnFolders, Model, Pipeline};
use stablehand::domain::GenerationInput;

use crate::card::{USUAL, on_cards};
use crate::controlnets;
use crate::forms::runtime;

/// The built-in model with the ControlNets a and b.
fn load(folder: &Path) -> Pipeline {
    for name in ["a", "b"] {
        controlnets::diffusers(name, folder);
    }
    let nowhere = || "/nowhere".into();
    let add_ons = AddOnFolders {
        loras: nowhere(),
        controlnets: folder.to_owned(),
        wildcards: nowhere(),
        embeddings: nowhere(),
        upscalers: nowhere(),
        tiny_vaes: nowhere(),
        lora_memory: 1 << 30,
        look_every: Duration::from_mins(1),
    };
    Model::open(None, Some(add_ons)).unwrap().load(&runtime()).unwrap()
}

fn controlled(pipeline: &Pipeline, side: u32, names: &[&str]) -> GenerationInput {
    let picture = include_bytes!("../../models/tiny-sd/gallery.png");
    let unit = |name: &&str| json!({"model": name, "image": STANDARD.encode(picture)});
    let request = json!({
        "prompt": "a red heart", "width": side, "height": side, "num_inference_steps": 5, "scheduler": "EULER-D",
        "guidance_end": 1, "controlnet": names.iter().map(unit).collect::<Vec<_>>(),
    });
    GenerationInput::parse(&request, pipeline.model().rules()).unwrap()
}

/// Values that a ControlNet for the built-in model gives for one row, whose latents have 16 × 16 pixels.
const RESIDUALS: u64 = 48 * (2 * 256 + 64) + 96 * (64 + 16) + 160 * (2 * 16);

#[test]
#[ignore = "needs tests/cuda/install"]
fn a_controlled_step_of_a_known_shape_is_two_replays() {
    on_cards(&[USUAL], |card| {
        let folder = tempfile::tempdir().unwrap();
        let mut pipeline = load(folder.path());
        for names in [&["a"][..], &["a", "b"]] {
            let mut generation = pipeline.begin(&controlled(&pipeline, 128, names), 7).unwrap();
            // The first step captures.
            pipeline.step(&mut [&mut generation]).unwrap();
            while !generation.is_done() {
                let (counts, ()) = card.count(|| pipeline.step(&mut [&mut generation]).unwrap());
                let nets = names.len() as u64;
                assert_eq!((counts.get("launches"), counts.get("replays")), (0, nets + 1), "{counts:?}");
                assert_eq!((counts.get("allocations"), counts.get("plans")), (0, 0), "{counts:?}");
                // Latents and timesteps for each net, and what the ControlNets give together for the UNet. The picture to
                // follow and the prompts are on the card.
                let rows = 2 * 4;
                let to_card = rows * ((nets + 1) * (4 * 256 + 1) + RESIDUALS);
                assert_eq!(counts.get("to card bytes"), to_card, "{counts:?}");
                assert_eq!(counts.get("to host bytes"), rows * (nets * RESIDUALS + 4 * 256), "{counts:?}");
            }
            pipeline.finish(&generation).unwrap();
        }
    });
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn controlled_calls_of_several_shapes_are_captured_beside_each_other() {
    on_cards(&[USUAL], |card| {
        let folder = tempfile::tempdir().unwrap();
        let mut pipeline = load(folder.path());
        for side in [128, 104] {
            pipeline.draw(&controlled(&pipeline, side, &["a"]), 7).unwrap();
        }
        let (counts, ()) = card.count(|| {
            for side in [104, 128] {
                let input = controlled(&pipeline, side, &["a"]);
                let mut generation = pipeline.begin(&input, 7).unwrap();
                while !generation.is_done() {
                    pipeline.step(&mut [&mut generation]).unwrap();
                }
            }
        });
        assert_eq!(counts.get("replays"), 2 * 2 * 5, "{counts:?}");
    });
}
