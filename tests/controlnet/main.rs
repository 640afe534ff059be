//! The built-in model draws with ControlNets what diffusers' pipelines draw with them.
//!
//! `tests/golden/controlnet.py` ran diffusers. The ControlNets are formulas, computed here again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../golden/controlnets.rs"]
mod controlnets;
mod edges;
mod forms;
mod maps;
mod memory;
#[path = "../golden/pictures.rs"]
mod pictures;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ndarray::Array4;
use serde::Deserialize;
use stablehand::diffusion::{AddOnFolders, Generation, Model, Pipeline};
use stablehand::domain::{
    ControlMode, ControlResize, ControlUnit, GenerationInput, ImageSize, Lora, LoraOrigin, Preprocessor,
    SchedulerKind,
};
use stablehand::runtime::{DeviceChoice, Runtime};

use self::controlnets::diffusers;
use self::pictures::{distance, start_mask, start_picture};

const GOLDEN: &str = include_str!("../golden/controlnet.json");
/// Relative, for the final latents.
const TOLERANCE: f64 = 1e-3;

#[derive(Deserialize)]
struct Golden {
    prompt: String,
    negative_prompt: String,
    width: u32,
    height: u32,
    steps: u32,
    seed: u64,
    tensors: BTreeMap<String, Tensor>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<usize>,
    original: String,
}

#[derive(Deserialize)]
struct Case {
    mode: String,
    units: Vec<Unit>,
    #[serde(default)]
    guess: bool,
    guidance_scale: Option<f32>,
    scheduler: Option<String>,
    strength: Option<f64>,
    latents: Vec<f32>,
}

#[derive(Deserialize)]
struct Unit {
    weight: f32,
    start: Option<f64>,
    end: Option<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(GOLDEN).unwrap()
}

struct Studio {
    _dir: tempfile::TempDir,
    pipeline: Pipeline,
    golden: Golden,
}

impl Studio {
    /// With the ControlNets `a` and `b`, as `form` lays them down.
    fn new(form: impl Fn(&str, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = |name: &str| dir.path().join(name);
        for name in ["a", "b"] {
            form(name, &folder("controlnets"));
        }
        fs::create_dir(folder("loras")).unwrap();
        let lora = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lora/kohya.safetensors");
        fs::copy(lora, folder("loras").join("kohya.safetensors")).unwrap();
        let folders = AddOnFolders {
            upscalers: "/nowhere".into(),
            tiny_vaes: "/nowhere".into(),
            wildcards: "/nowhere".into(),
            loras: folder("loras"),
            controlnets: folder("controlnets"),
            embeddings: folder("embeddings"),
            lora_memory: u64::MAX,
            look_every: Duration::ZERO,
        };
        let model = Model::open(None, Some(folders)).unwrap();
        let pipeline =
            model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap().with_images_per_call(4);
        Self { pipeline, golden: golden(), _dir: dir }
    }

    fn input(&self, case: &Case) -> GenerationInput {
        let Golden { width, height, steps, .. } = self.golden;
        let hints = [start_picture(width, height), start_mask(width, height)];
        let units = case.units.iter().zip(["a", "b"]).zip(hints).map(|((unit, model), image)| ControlUnit {
            model: model.to_owned(),
            image,
            weight: unit.weight,
            start: unit.start.unwrap_or(0.0),
            end: unit.end.unwrap_or(1.0),
            preprocess: Preprocessor::None,
            thresholds: [0.0; 2],
            mode: if case.guess { ControlMode::Control } else { ControlMode::Balanced },
            resize: ControlResize::Crop,
        });
        GenerationInput {
            negative_prompt: self.golden.negative_prompt.clone(),
            size: ImageSize { width, height },
            num_inference_steps: steps,
            guidance_scale: case.guidance_scale.unwrap_or(2.0),
            scheduler: SchedulerKind::parse(case.scheduler.as_deref().unwrap_or("DDIM")).unwrap().0,
            init_image: (case.mode != "text").then(|| start_picture(width, height)),
            mask: (case.mode == "inpaint").then(|| start_mask(width, height)),
            prompt_strength: case.strength.unwrap_or(1.0),
            controlnets: units.collect(),
            ..GenerationInput::new(&self.golden.prompt)
        }
    }

    fn draw(&mut self, inputs: &[(GenerationInput, u64)]) -> Vec<Generation> {
        let mut batch: Vec<_> =
            inputs.iter().map(|(input, seed)| self.pipeline.begin(input, *seed).unwrap()).collect();
        while batch.iter().any(|generation| !generation.is_done()) {
            self.pipeline.step(&mut batch.iter_mut().collect::<Vec<_>>()).unwrap();
        }
        batch
    }

    fn expected(&self, case: &Case) -> Array4<f32> {
        let shape = (1, 4, self.golden.height as usize / 8, self.golden.width as usize / 8);
        Array4::from_shape_vec(shape, case.latents.clone()).unwrap()
    }

    /// The distance of a case from diffusers' latents.
    fn distance(&mut self, case: &Case) -> f64 {
        let drawn = self.draw(&[(self.input(case), self.golden.seed)]).remove(0);
        distance(drawn.latents(), &self.expected(case))
    }
}

#[test]
fn every_way_to_control_draws_what_diffusers_draws() {
    let mut studio = Studio::new(diffusers);
    for case in golden().cases {
        let name = format!("{} {:?}, guess {}", case.mode, case.scheduler, case.guess);
        let away = studio.distance(&case);
        println!("{name}: {away:.1e}");
        assert!(away <= TOLERANCE, "{name}: {away:e}");
        let free = GenerationInput { controlnets: Vec::new(), ..studio.input(&case) };
        let free = studio.draw(&[(free, studio.golden.seed)]).remove(0);
        let without = distance(free.latents(), &studio.expected(&case));
        assert!(without > 20.0 * TOLERANCE, "{name}: the ControlNet does too little, {without:e}");
    }
}

#[test]
fn controlled_pictures_share_calls_with_each_other_and_not_with_others() {
    let mut studio = Studio::new(diffusers);
    let cases = golden().cases;
    let seed = studio.golden.seed;
    // Two of them, two pictures of one, and one without, in one batch.
    let [first, late, two] = [0, 1, 2].map(|index| studio.input(&cases[index]));
    let pair = GenerationInput { num_outputs: 2, ..first.clone() };
    let free = GenerationInput { controlnets: Vec::new(), ..first.clone() };
    let batch = studio.draw(&[(first, seed), (late, seed), (two, seed), (pair, seed), (free.clone(), seed)]);
    for (generation, case) in batch.iter().zip(&cases[..3]) {
        assert!(distance(generation.latents(), &studio.expected(case)) <= TOLERANCE);
    }
    let both = batch[3].latents();
    let one = both.slice(ndarray::s![..1, .., .., ..]).to_owned();
    assert!(distance(&one, &studio.expected(&cases[0])) <= TOLERANCE, "the first of two");
    let alone = studio.draw(&[(free, seed)]).remove(0);
    assert!(
        distance(batch[4].latents(), alone.latents()) <= 1e-4,
        "a picture without ControlNets is as it was"
    );
}

#[test]
fn loras_and_long_prompts_go_with_controlnets() {
    let mut studio = Studio::new(diffusers);
    let cases = golden().cases;
    let lora = Lora {
        name: "kohya".to_owned(),
        unet: 0.8,
        text_encoder: 0.8,
        blocks: None,
        origin: LoraOrigin::Field,
    };
    let seed = studio.golden.seed;
    let controlled = studio.input(&cases[0]);
    let with_lora = GenerationInput { loras: vec![lora], ..controlled.clone() };
    let free = GenerationInput { controlnets: Vec::new(), ..with_lora.clone() };
    let long = GenerationInput {
        prompt: format!("{} {}", controlled.prompt, "and more ".repeat(60)),
        ..controlled.clone()
    };
    let masked = GenerationInput { loras: with_lora.loras.clone(), ..studio.input(&cases[6]) };
    let mut drawn = Vec::new();
    for input in [controlled, with_lora, free, long, masked] {
        drawn.push(studio.draw(&[(input, seed)]).remove(0).latents().clone());
    }
    for (index, one) in drawn.iter().enumerate() {
        for other in &drawn[..index] {
            assert!(distance(one, other) > 5e-3, "each of them changes the picture");
        }
    }
    // The texts in the picture.
    let mut inputs = studio.input(&cases[2]);
    inputs.controlnets[0].preprocess = Preprocessor::Canny;
    inputs.controlnets[0].thresholds = [100.0, 200.0];
    let generation = studio.draw(&[(inputs, seed)]).remove(0);
    let texts = studio.pipeline.finish(&generation).unwrap().remove(0).texts;
    let unit = "ControlNet 0: \"Module: canny, Model: a, Weight: 0.7, Resize Mode: Crop and Resize, Threshold A: 100, Threshold B: 200, Guidance Start: 0, Guidance End: 1, Pixel Perfect: True, Control Mode: Balanced\"";
    assert!(texts.parameters.contains(unit), "{}", texts.parameters);
    assert!(
        texts.request.contains(r#""model":"b""#) && !texts.request.contains("image\""),
        "{}",
        texts.request
    );
}
