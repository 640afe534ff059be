//! The built-in model draws with ControlNets what diffusers' pipelines draw with them, from every form of file.
//!
//! `tests/golden/controlnet.py` ran diffusers. The ControlNets are formulas, computed here again.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../golden/controlnets.rs"]
mod controlnets;
mod edges;
#[path = "../golden/pictures.rs"]
mod pictures;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ndarray::{Array4, s};
use safetensors::SafeTensors;
use serde::Deserialize;
use stablehand::diffusion::{Adaptation, AddOnFolders, Generation, Model, Pipeline};
use stablehand::domain::{
    ControlMode, ControlResize, ControlUnit, GenerationInput, ImageSize, Lora, LoraOrigin, Preprocessor,
    SchedulerKind,
};
use stablehand::runtime::{DeviceChoice, Runtime};

use self::controlnets::{Tensors, diffusers, tensors, write};
use self::pictures::{distance, start_mask, start_picture};

const GOLDEN: &str = include_str!("../golden/controlnet.json");
const UNET: &[u8] = include_bytes!("../../models/tiny-sd/unet/diffusion_pytorch_model.fp16.safetensors");
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

/// The same with the names of lllyasviel's files.
fn original(tensors: Tensors) -> Tensors {
    let names = golden().tensors;
    tensors.into_iter().map(|(name, shape, values)| (names[&name].original.clone(), shape, values)).collect()
}

/// The same without the UNet's weights, and the mark of such a file.
fn difference(tensors: Tensors) -> Tensors {
    let unet = SafeTensors::deserialize(UNET).unwrap();
    let base = |name: &str| {
        let data = unet.tensor(name).ok()?;
        let halves = data.data().as_chunks::<2>().0.iter();
        Some(halves.map(|half| half::f16::from_le_bytes(*half).to_f32()).collect::<Vec<f32>>())
    };
    let without = |(name, shape, mut values): (String, Vec<usize>, Vec<f32>)| {
        for (value, base) in values.iter_mut().zip(base(&name).unwrap_or_default()) {
            *value -= base;
        }
        (name, shape, values)
    };
    tensors.into_iter().map(without).chain([("difference".to_owned(), vec![1], vec![0.0])]).collect()
}

/// Lays a ControlNet of this name into a folder.
type Lay<'a> = &'a dyn Fn(&str, &Path);

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
fn every_form_of_a_file_gives_the_same() {
    let case = golden().cases.remove(2);
    let forms: [(&str, Lay<'_>); 3] = [
        ("original names", &|name, folder| {
            write(&original(tensors(name)), &folder.join(format!("{name}.safetensors")));
        }),
        ("bare original names", &|name, folder| {
            let bare = original(tensors(name)).into_iter();
            let bare = bare
                .map(|(name, shape, values)| (name.replace("control_model.", ""), shape, values))
                .collect();
            write(&bare, &folder.join("sd15").join(format!("{name}.safetensors")));
        }),
        ("differences", &|name, folder| {
            write(&difference(tensors(name)), &folder.join(format!("{name}.safetensors")));
        }),
    ];
    for (form, lay) in forms {
        let away = Studio::new(lay).distance(&case);
        assert!(away <= TOLERANCE, "{form}: {away:e}");
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

#[test]
fn a_controlled_unet_takes_no_weights_of_its_own_and_everything_is_given_back() {
    let mut studio = Studio::new(diffusers);
    let (case, seed) = (golden().cases.remove(0), studio.golden.seed);
    let before = studio.pipeline.memory();
    let input = studio.input(&case);
    let generation = studio.draw(&[(input.clone(), seed)]).remove(0);
    let held = studio.pipeline.prepared_memory();
    // Its ControlNet in float32, and two usual calls.
    let weights: usize =
        golden().tensors.values().map(|tensor| tensor.shape.iter().product::<usize>() * 4).sum();
    let calls = held - u64::try_from(weights).unwrap();
    assert!(
        calls < 2 * studio.pipeline.model().memory_needs(&stablehand::runtime::Device::Cpu).unwrap().usual(2),
        "{held}"
    );
    assert!(studio.pipeline.memory() >= before + u64::try_from(weights).unwrap());
    assert!(studio.pipeline.unused_copies().is_empty(), "the generation holds them");
    drop(generation);
    assert_eq!(studio.pipeline.unused_copies().len(), 2, "the UNet and the ControlNet");
    studio.pipeline.drop_copies(u64::MAX);
    assert_eq!(studio.pipeline.memory(), before);
    // Memory that a larger picture takes is planned before.
    let larger = GenerationInput { size: ImageSize { width: 256, height: 256 }, ..input };
    let free = GenerationInput { controlnets: Vec::new(), ..larger.clone() };
    assert!(studio.pipeline.memory_for(&[&larger]) > studio.pipeline.memory_for(&[&free]));
}

#[test]
fn what_a_controlnet_keeps_between_calls_counts_until_it_has_said_everything() {
    let mut studio = Studio::new(diffusers);
    let mut input = studio.input(&golden().cases[0]);
    // Larger than a usual call, which has two rows.
    (input.num_outputs, input.num_inference_steps) = (4, 4);
    input.size = ImageSize { width: 128, height: 128 };
    input.controlnets.truncate(1);
    input.controlnets[0].end = 0.5;
    let mut generation = studio.pipeline.begin(&input, 1).unwrap();
    let mut held = vec![studio.pipeline.prepared_memory()];
    while !generation.is_done() {
        studio.pipeline.step(&mut [&mut generation]).unwrap();
        held.push(studio.pipeline.prepared_memory());
    }
    let [begun, one, two, three, end] = held[..] else { panic!("{held:?}") };
    assert!(one > two && two == three, "it has given back at its last call: {held:?}");
    assert!(two > begun && end == begun, "the UNet keeps more until the end: {held:?}");
    drop(generation);
    // A job that ends before leaves what its sessions keep.
    let mut cancelled = studio.pipeline.begin(&input, 1).unwrap();
    studio.pipeline.step(&mut [&mut cancelled]).unwrap();
    drop(cancelled);
    assert_eq!(studio.pipeline.prepared_memory(), one);
    studio.pipeline.drop_copies(u64::MAX);
    assert_eq!(studio.pipeline.prepared_memory(), 0);
}

#[test]
fn requests_that_share_a_controlnet_share_its_key() {
    let mut studio = Studio::new(diffusers);
    let cases = golden().cases;
    let two = studio.input(cases.iter().find(|case| case.units.len() == 2).unwrap());
    let one =
        |index: usize| GenerationInput { controlnets: vec![two.controlnets[index].clone()], ..two.clone() };
    let mut keys = |input: &GenerationInput| match studio.pipeline.adapt(input).unwrap() {
        Adaptation::Make(making) => making.keys(),
        Adaptation::Ready(_) => Vec::new(),
    };
    let (a, b, both) = (keys(&one(0)), keys(&one(1)), keys(&two));
    assert_eq!((a.len(), both.len()), (2, 3), "a UNet, and the ControlNets");
    assert!(a.iter().chain(&b).all(|key| both.contains(key)) && a != b);
}

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

#[test]
fn a_controlnet_of_another_model_is_refused_in_a_sentence() {
    let mut studio = Studio::new(|name, folder| {
        let mut narrow = tensors(name);
        narrow.iter_mut().filter(|(name, ..)| name == "conv_in.bias").for_each(|(_, shape, values)| {
            (*shape, *values) = (vec![3], vec![0.0; 3]);
        });
        write(&narrow, &folder.join(format!("{name}.safetensors")));
    });
    let input = studio.input(&golden().cases[0]);
    let error = studio.pipeline.begin(&input, 1).err().unwrap().to_string();
    assert!(error.contains("The ControlNet a cannot be used: the tensor conv_in.bias"), "{error}");
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
