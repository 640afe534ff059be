//! Every two features work together in one job: each takes effect, and the text in the PNG draws the picture again.
//!
//! The built-in model draws each picture small and in few steps. A new feature is a new row of `features`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/controlnets.rs"]
mod controlnets;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use serde_json::{Map, Value, json};
use stablehand::diffusion::{AddOnFolders, Model, Picture, Pipeline, decode_image};
use stablehand::domain::{GenerationInput, ImageSize, InputRules, Violations};
use stablehand::runtime::{DeviceChoice, Runtime};
use tempfile::TempDir;

const SEED: u64 = 5;

/// One way to use the server: the fields that ask for it, and what it can be combined with.
struct Feature {
    name: &'static str,
    fields: Value,
    /// Features of the same kind exclude each other.
    kind: &'static str,
}

fn feature(name: &'static str, kind: &'static str, fields: Value) -> Feature {
    Feature { name, fields, kind }
}

fn features() -> Vec<Feature> {
    let (picture, mask) = (picture(), mask());
    let masked = |more: Value| {
        let mut fields = json!({"init_image": picture, "mask": mask, "prompt_strength": 0.7});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        fields
    };
    let long = "a red heart, ".repeat(60);
    vec![
        feature("LoRA", "lora", json!({"lora": "kohya"})),
        feature("a long prompt", "prompt", json!({"prompt": long})),
        feature("a learned word", "prompt", json!({"prompt": "a zorblax heart"})),
        feature("from a picture", "picture", json!({"init_image": picture, "prompt_strength": 0.7})),
        feature(
            "a cut picture",
            "picture",
            json!({"init_image": picture, "resize_mode": "crop", "prompt_strength": 0.7}),
        ),
        feature(
            "stretched latents",
            "picture",
            json!({"init_image": picture, "resize_mode": "latent", "prompt_strength": 0.7}),
        ),
        feature("a mask", "picture", masked(json!({}))),
        feature("only masked", "picture", masked(json!({"inpaint_area": "masked", "inpaint_padding": 4}))),
        feature("latent noise", "picture", masked(json!({"inpaint_fill": "noise"}))),
        feature("surroundings", "picture", masked(json!({"inpaint_fill": "surroundings", "mask_blur": 2}))),
        feature(
            "outpainting",
            "picture",
            json!({"init_image": picture, "outpaint": {"left": 24}, "width": 64, "height": 64}),
        ),
        feature("a variation", "variation", json!({"subseed": 9, "subseed_strength": 0.6})),
        feature(
            "another size's noise",
            "resize",
            json!({"seed_resize_width": 128, "seed_resize_height": 64}),
        ),
        feature("a tile", "tile", json!({"tiling": true})),
        feature("a prompt that changes", "prompt", json!({"prompt": "a [red:blue:0.25] heart"})),
        feature("a prompt of parts", "prompt", json!({"prompt": "a red heart AND a green tree"})),
        feature("CUDA's noise", "noise", json!({"noise": "cuda"})),
        feature("int8", "precision", json!({"precision": "int8"})),
        feature("Karras sigmas", "scheduler", json!({"scheduler": "DPM-M", "karras": true})),
        feature("an ancestral scheduler", "scheduler", json!({"scheduler": "EULER-A"})),
        feature("two pictures", "outputs", json!({"num_outputs": 2})),
        feature("guidance that ends", "guidance", json!({"guidance_end": 0.4, "guidance_rescale": 0.5})),
        feature("deep features", "cache", json!({"cache_interval": 2})),
        feature(
            "a ControlNet",
            "controlnet",
            json!({"controlnet": [{"model": "a", "image": picture, "preprocess": "canny"}]}),
        ),
        feature(
            "two ControlNets",
            "controlnet",
            json!({"controlnet": [
                {"model": "b", "image": picture, "end": 0.5},
                {"model": "a", "image": mask, "control_mode": "control", "weight": 0.6},
            ]}),
        ),
        feature("a tiny VAE", "vae", json!({"vae": "tiny"})),
        feature("hires", "hires", json!({"hires": {"scale": 1.5, "strength": 0.6}})),
        feature(
            "hires by a model",
            "hires",
            json!({"hires": {"width": 128, "height": 64, "upscaler": "x2", "strength": 0.5, "steps": 6,
                "prompt": "a [tree:house:1.5]", "guidance_scale": 3, "scheduler": "DPM-M"}}),
        ),
    ]
}

/// What no request may ask for together.
fn exclude_each_other(a: &Feature, b: &Feature) -> bool {
    let are = |first: fn(&Feature) -> bool, second: fn(&Feature) -> bool| {
        first(a) && second(b) || first(b) && second(a)
    };
    // What is drawn into a larger picture is no tile, and neither is what is enlarged or follows a picture.
    let is_larger = |feature: &Feature| ["only masked", "outpainting"].contains(&feature.name);
    are(|feature| feature.kind == "tile", is_larger)
        || are(|feature| feature.kind == "tile", |feature| ["controlnet", "hires"].contains(&feature.kind))
        // What is laid back into its picture cannot be cut.
        || are(is_larger, |feature| feature.name == "hires by a model")
}

/// What a request may ask for together, but one has no effect beside the other. The answer's warnings say so.
fn one_has_no_effect(a: &Feature, b: &Feature) -> bool {
    let kinds = [a.kind, b.kind];
    kinds.contains(&"cache") && kinds.contains(&"controlnet")
}

fn png(image: RgbImage) -> String {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    STANDARD.encode(bytes.into_inner())
}

/// Of another size and shape than what is drawn.
fn picture() -> String {
    png(RgbImage::from_fn(96, 80, |x, y| {
        let shade = |at: u32| u8::try_from(at * 2).unwrap();
        if (20..60).contains(&x) && y > 30 { Rgb([220, 40, 50]) } else { Rgb([shade(x), shade(y), 190]) }
    }))
}

fn mask() -> String {
    png(RgbImage::from_fn(96, 80, |x, y| {
        Rgb([if (30..70).contains(&x) && (20..50).contains(&y) { 255 } else { 0 }; 3])
    }))
}

struct Studio {
    pipeline: Pipeline,
    rules: InputRules,
    _dir: TempDir,
}

impl Studio {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folders = AddOnFolders {
            upscalers: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upscalers"),
            tiny_vaes: "/nowhere".into(),
            loras: dir.path().join("loras"),
            controlnets: dir.path().join("controlnets"),
            wildcards: dir.path().join("wildcards"),
            embeddings: dir.path().join("embeddings"),
            lora_memory: 1 << 30,
            look_every: Duration::ZERO,
        };
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora");
        for (folder, file, name) in
            [(&folders.loras, "kohya", "kohya"), (&folders.embeddings, "word.embedding", "zorblax")]
        {
            fs::create_dir_all(folder).unwrap();
            fs::copy(golden.join(format!("{file}.safetensors")), folder.join(format!("{name}.safetensors")))
                .unwrap();
        }
        for name in ["a", "b"] {
            controlnets::diffusers(name, &folders.controlnets);
        }
        fs::create_dir(&folders.wildcards).unwrap();
        fs::write(folders.wildcards.join("colour.txt"), "green\nyellow\nblack\n").unwrap();
        let model = Model::open(None, Some(folders)).unwrap();
        let pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
        Self { pipeline, rules: model.rules().clone(), _dir: dir }
    }

    fn read(&self, fields: &Map<String, Value>) -> Result<GenerationInput, Violations> {
        let usual = json!({"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 4,
            "scheduler": "EULER-D", "seed": SEED});
        let mut request = usual.as_object().unwrap().clone();
        request.extend(fields.clone());
        GenerationInput::parse(&request.into(), &self.rules)
    }

    fn draw(&mut self, fields: &Map<String, Value>) -> Vec<Picture> {
        let input = self.read(fields).unwrap();
        self.pipeline.draw(&input, SEED).unwrap()
    }

    /// The picture drawn from the request inside another one, with the pictures that the client has.
    fn draw_again(&mut self, picture: &Picture, fields: &Map<String, Value>) -> Picture {
        let mut request: Value = serde_json::from_str(&picture.texts.request).unwrap();
        for name in ["init_image", "mask"] {
            request[name] = fields.get(name).cloned().unwrap_or_default();
        }
        let units = fields.get("controlnet").and_then(Value::as_array).into_iter().flatten();
        for (index, unit) in units.enumerate() {
            request["controlnet"][index]["image"] = unit["image"].clone();
        }
        let input = GenerationInput::parse(&request, &self.rules).unwrap();
        self.pipeline.draw(&input, input.seed.unwrap()).unwrap().remove(0)
    }
}

fn together(some: &[&Feature]) -> Map<String, Value> {
    some.iter().flat_map(|feature| feature.fields.as_object().unwrap().clone()).collect()
}

#[test]
fn every_two_features_work_together() {
    let mut studio = Studio::new();
    let features = features();
    let plain = studio.draw(&Map::new()).remove(0).image;
    let alone: Vec<Picture> =
        features.iter().map(|feature| studio.draw(&together(&[feature])).pop().unwrap()).collect();
    for (feature, picture) in features.iter().zip(&alone) {
        assert_ne!(picture.image.pixels, plain.pixels, "{} has no effect", feature.name);
    }
    let mut pairs = 0;
    for (at, first) in features.iter().enumerate() {
        for (further, second) in features.iter().enumerate().skip(at + 1) {
            if first.kind == second.kind {
                continue;
            }
            let name = format!("{} with {}", first.name, second.name);
            let fields = together(&[first, second]);
            if exclude_each_other(first, second) {
                assert!(studio.read(&fields).is_err(), "{name}");
                continue;
            }
            if one_has_no_effect(first, second) {
                assert_eq!(studio.read(&fields).unwrap().warnings.len(), 1, "{name}");
                continue;
            }
            let pictures = studio.draw(&fields);
            let picture = pictures.last().unwrap();
            assert_ne!(picture.image.pixels, alone[at].image.pixels, "{name}: the second has no effect");
            assert_ne!(picture.image.pixels, alone[further].image.pixels, "{name}: the first has no effect");
            let again = studio.draw_again(picture, &fields);
            assert!(
                again.image == picture.image && again.png == picture.png,
                "{name}: the text draws another picture"
            );
            pairs += 1;
        }
    }
    assert!(pairs > 100, "{pairs}");
}

/// Draws all of them together, and again from the text of each picture.
fn work_together(names: &[&str], further: &Value, size: (u32, u32)) {
    let mut studio = Studio::new();
    let features = features();
    let chosen: Vec<&Feature> =
        names.iter().map(|name| features.iter().find(|feature| feature.name == *name).unwrap()).collect();
    let mut fields = together(&chosen);
    fields.extend(further.as_object().unwrap().clone());
    let pictures = studio.draw(&fields);
    assert_eq!(pictures.len(), 2);
    for picture in &pictures {
        assert_eq!((picture.image.width, picture.image.height), size);
        assert!(studio.draw_again(picture, &fields).png == picture.png, "{}", picture.texts.request);
    }
}

const EVERYWHERE: [&str; 7] = [
    "LoRA",
    "a variation",
    "another size's noise",
    "CUDA's noise",
    "an ancestral scheduler",
    "two pictures",
    "guidance that ends",
];
const PROMPT: &str = "a {red|blue} [heart|tree] AND a __colour__ [moon::0.5] zorblax :0.7 BREAK (sky:1.3)";

#[test]
fn all_features_work_together_in_a_masked_area() {
    let names = [&EVERYWHERE[..], &["only masked", "two ControlNets", "a long prompt"]].concat();
    work_together(&names, &json!({}), (96, 80));
    let prompt = json!({"prompt": PROMPT, "wildcards": true});
    work_together(&names, &prompt, (96, 80));
}

#[test]
fn all_features_work_together_in_two_passes_over_a_masked_picture() {
    let names = [&EVERYWHERE[..], &["surroundings", "hires", "two ControlNets"]].concat();
    work_together(&names, &json!({"prompt": PROMPT, "wildcards": true}), (96, 96));
    let names = [&EVERYWHERE[..], &["only masked", "hires", "a ControlNet", "a long prompt"]].concat();
    work_together(&names, &json!({}), (96, 80));
}

#[test]
fn two_passes_over_a_masked_picture_keep_the_rest_of_it() {
    let mut studio = Studio::new();
    let features = features();
    let chosen = ["LoRA", "a ControlNet", "a mask", "hires"]
        .map(|name| features.iter().find(|feature| feature.name == name).unwrap());
    let mut fields = together(&chosen);
    let prompt = "a red heart, ".repeat(25);
    let length = studio.rules.prompts.as_ref().unwrap().length(&prompt).unwrap();
    assert_eq!(length.chunks, 2, "154 tokens with what frames them");
    fields.extend(json!({"prompt": prompt, "mask_blur": 1}).as_object().unwrap().clone());
    let drawn = studio.draw(&fields).remove(0);
    assert!(studio.draw_again(&drawn, &fields).png == drawn.png, "{}", drawn.texts.request);

    let size = ImageSize { width: 96, height: 96 };
    let bytes = STANDARD.decode(picture()).unwrap();
    let enlarged = decode_image(&bytes).unwrap().resize(size).unwrap();
    // The mask of `mask`, of 96 × 80 pixels, and what the blur and the resizing add to it.
    let may_change = |x: u32, y: u32| (26..74).contains(&x) && (20..64).contains(&y);
    let mut changed = 0;
    for (at, (ours, theirs)) in (0..).zip(drawn.image.pixels.chunks(3).zip(enlarged.pixels.chunks(3))) {
        let (x, y) = (at % size.width, at / size.width);
        assert!(ours == theirs || may_change(x, y), "{x} {y}: {ours:?} {theirs:?}");
        changed += u32::from(ours != theirs);
    }
    assert!(changed > 1000, "{changed}");
    for without in ["lora", "controlnet", "mask", "hires"] {
        let mut fields = fields.clone();
        fields.remove(without);
        assert_ne!(studio.draw(&fields)[0].image, drawn.image, "{without} has no effect");
    }
}

#[test]
fn all_features_work_together_in_two_passes() {
    let reused = [&EVERYWHERE[..], &["hires by a model", "deep features"]].concat();
    work_together(&reused, &json!({"prompt": PROMPT, "wildcards": true}), (128, 64));
    let names = [&EVERYWHERE[..], &["hires by a model", "two ControlNets"]].concat();
    work_together(&names, &json!({"prompt": PROMPT, "wildcards": true}), (128, 64));
    let hires = json!({"scale": 1.5, "prompt": "a {red|blue|white} [house:tree:1.5] AND __colour__ snow",
        "negative_prompt": "{fog|rain}"});
    work_together(&names, &json!({"prompt": PROMPT, "wildcards": true, "hires": hires}), (96, 96));
}
