//! `precision: int8` draws nearly the same pictures, whatever else is drawn at the same time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::diffusion::{AddOnFolders, Generation, Model, Picture, Pipeline};
use stablehand::domain::{GenerationInput, InputRules, Precision};
use stablehand::runtime::{CpuSettings, CpuSpeed, DeviceChoice, Runtime, multiplies_int8};
use tempfile::TempDir;

/// The least likeness to the full picture in dB, where 255 is the largest value. Of the pictures below the least like has
/// more (`docs/speed.md`).
const LEAST_PSNR: f64 = 25.0;

const PROMPTS: [&str; 24] = [
    "a red heart on a blue background",
    "a dog",
    "a cat",
    "a house",
    "an apple",
    "a green apple",
    "a purple car",
    "a blue car on a yellow background",
    "a pizza",
    "the sun",
    "a tree",
    "a rocket on a black background",
    "a fish",
    "a happy face",
    "a banana on a pink background",
    "a star on a purple background",
    "a snowman",
    "a hamburger",
    "a bicycle",
    "a guitar",
    "an airplane",
    "a panda",
    "a butterfly",
    "a castle",
];

struct Studio {
    pipeline: Pipeline,
    rules: InputRules,
    dir: TempDir,
}

fn add_ons(dir: &Path) -> AddOnFolders {
    AddOnFolders {
        loras: dir.to_owned(),
        controlnets: "/nowhere".into(),
        embeddings: "/nowhere".into(),
        upscalers: "/nowhere".into(),
        wildcards: "/nowhere".into(),
        tiny_vaes: "/nowhere".into(),
        lora_memory: 1 << 30,
        look_every: Duration::ZERO,
    }
}

impl Studio {
    fn new() -> Self {
        Self::with(CpuSpeed::Auto)
    }

    fn with(speed: CpuSpeed) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora");
        fs::copy(golden.join("kohya.safetensors"), dir.path().join("kohya.safetensors")).unwrap();
        let model = Model::open(None, Some(add_ons(dir.path()))).unwrap();
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let runtime = runtime.with_cpu(CpuSettings { speed, ..CpuSettings::default() });
        let pipeline = model.load(&runtime).unwrap();
        Self { pipeline, rules: model.rules().clone(), dir }
    }

    fn begin(&mut self, fields: &Value) -> Generation {
        let mut input = json!({"prompt": "a red heart", "width": 64, "height": 64, "num_inference_steps": 6, "scheduler": "DPM-M"});
        input.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let input = GenerationInput::parse(&input, &self.rules).unwrap();
        self.pipeline.begin(&input, 5).unwrap()
    }

    fn draw(&mut self, fields: &Value) -> Picture {
        let mut generation = self.begin(fields);
        self.finish(&mut [&mut generation]).remove(0)
    }

    fn finish(&mut self, batch: &mut [&mut Generation]) -> Vec<Picture> {
        while batch.iter().any(|generation| !generation.is_done()) {
            self.pipeline.step(batch).unwrap();
        }
        batch.iter().flat_map(|generation| self.pipeline.finish(generation).unwrap()).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "pictures are small")]
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * a.len() as f64 / squares).log10()
}

#[test]
fn pictures_in_int8_are_nearly_the_full_ones() {
    if !multiplies_int8() {
        return;
    }
    // With ONNX Runtime's kernels, and with ours: their layers have more around the products.
    let prompts = ["a red heart", "a cat", "a green tree", "a house", "the sun", "a bicycle"];
    let cases = prompts.map(|prompt| (prompt, CpuSpeed::Memory)).into_iter();
    let mut studios = [CpuSpeed::Memory, CpuSpeed::Fast].map(|speed| (speed, Studio::with(speed)));
    for (prompt, speed) in cases.chain([("a red heart", CpuSpeed::Fast), ("a cat", CpuSpeed::Fast)]) {
        let (_, studio) = studios.iter_mut().find(|(of, _)| *of == speed).unwrap();
        let full = studio.draw(&json!({"prompt": prompt}));
        let int8 = studio.draw(&json!({"prompt": prompt, "precision": "int8"}));
        let likeness = psnr(&full.image.pixels, &int8.image.pixels);
        eprintln!("{prompt}, {speed:?}: {likeness:.1} dB");
        assert!((LEAST_PSNR..80.0).contains(&likeness), "{prompt}: {likeness}");
        assert!(int8.texts.parameters.contains("Precision: int8"), "{}", int8.texts.parameters);
        assert!(!full.texts.parameters.contains("Precision") && !full.texts.request.contains("precision"));
        let again: Value = serde_json::from_str(&int8.texts.request).unwrap();
        assert_eq!(studio.draw(&again).png, int8.png);
    }
}

#[test]
fn a_picture_in_int8_does_not_depend_on_what_is_drawn_beside_it() {
    let mut studio = Studio::new();
    let cat = json!({"prompt": "a cat", "precision": "int8"});
    let alone = studio.draw(&cat);
    let mut all = [
        json!({"prompt": "a red heart", "precision": "int8", "guidance_scale": 15}),
        cat,
        json!({"prompt": "a tree", "precision": "int8", "num_outputs": 2}),
        json!({"prompt": "a full cat"}),
    ]
    .map(|fields| studio.begin(&fields));
    let mut batch: Vec<_> = all.iter_mut().collect();
    let pictures = studio.finish(&mut batch);
    assert_eq!(pictures.len(), 5);
    assert!(pictures[1].png == alone.png);
}

#[test]
fn loras_are_merged_before_weights_are_brought_into_int8() {
    let mut studio = Studio::new();
    let [plain, full, int8] = [
        json!({"precision": "int8"}),
        json!({"lora": "kohya"}),
        json!({"lora": "kohya", "precision": "int8"}),
    ]
    .map(|fields| studio.draw(&fields).image.pixels);
    let (to_full, to_plain) = (psnr(&int8, &full), psnr(&int8, &plain));
    assert!(to_full > LEAST_PSNR && to_full > to_plain + 3.0, "{to_full} dB, {to_plain} dB without the LoRA");
}

#[test]
fn a_copy_in_int8_shares_the_other_weights() {
    if !multiplies_int8() {
        return;
    }
    let mut studio = Studio::new();
    let before = studio.pipeline.prepared_memory();
    studio.draw(&json!({"precision": "int8"}));
    let int8 = studio.pipeline.prepared_memory() - before;
    studio.pipeline.drop_copies(u64::MAX);
    assert_eq!(studio.pipeline.prepared_memory(), before);
    studio.draw(&json!({"lora": "kohya"}));
    let lora = studio.pipeline.prepared_memory() - before;
    assert!(int8 > 0 && int8 < lora, "{int8} bytes in int8, {lora} with a LoRA");
    drop(studio.dir);
}

#[test]
fn a_model_with_its_weights_in_its_graphs_refuses_int8() {
    // Those of such a folder; `tests/models/refused.rs` opens one.
    let rules = InputRules { precisions: &[Precision::Full], ..InputRules::default() };
    let parse =
        |precision: &str| GenerationInput::parse(&json!({"prompt": "", "precision": precision}), &rules);
    assert_eq!(parse("full").unwrap().precision, Precision::Full);
    assert_eq!(
        parse("int8").unwrap_err().to_string(),
        "precision does not meet the constraints. It is int8; this model supports only full, because its weights are \
         inside its ONNX graphs."
    );
    assert_eq!(
        parse("int4").unwrap_err().to_string(),
        "precision does not meet the constraints. It is \"int4\"; it must be one of full, int8."
    );
}

/// The figures of `docs/speed.md`: the time of a guided step, the memory of the copy, and the likeness over 24 prompts. The
/// built-in model, or the one in `STABLEHAND_MODEL` at 512 × 512 and few pictures. Compile it with optimisation:
/// `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test --test int8 figures -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes, and says nothing without optimisation"]
fn figures() {
    let path = std::env::var_os("STABLEHAND_MODEL").map(PathBuf::from);
    let model = Model::open(path.as_deref(), Some(add_ons(Path::new("/nowhere")))).unwrap();
    let rules = model.rules().clone();
    let mut pipeline = model.load(&Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
    let side = model.description().native_side;
    let number =
        |name: &str, usual: usize| std::env::var(name).ok().map_or(usual, |number| number.parse().unwrap());
    let (steps, pictures) = (number("STEPS", 20), number("PICTURES", 24));
    let input = |prompt: &str, precision: &str| {
        let fields = json!({"prompt": prompt, "width": side, "height": side, "num_inference_steps": steps,
            "precision": precision});
        GenerationInput::parse(&fields, &rules).unwrap()
    };
    let begin = |pipeline: &mut Pipeline, prompt: &str, precision: &str| {
        pipeline.begin(&input(prompt, precision), 1).unwrap()
    };
    // Both are held, so that the copy is made once.
    let held = ["full", "int8"].map(|precision| begin(&mut pipeline, "a cat", precision));
    eprintln!("{}: the copy takes {} bytes with a call's", model.name(), pipeline.prepared_memory());
    let mut likeness = Vec::new();
    let mut shortest = [Duration::MAX; 2];
    for prompt in PROMPTS.iter().take(pictures) {
        let images = ["full", "int8"].map(|precision| {
            let mut generation = begin(&mut pipeline, prompt, precision);
            while !generation.is_done() {
                let guided = generation.progress().0 < u32::try_from(steps / 2).unwrap();
                let started = Instant::now();
                pipeline.step(&mut [&mut generation]).unwrap();
                let shortest = &mut shortest[usize::from(precision == "int8")];
                *shortest = if guided { started.elapsed().min(*shortest) } else { *shortest };
            }
            pipeline.finish(&generation).unwrap().remove(0).image.pixels
        });
        likeness.push(psnr(&images[0], &images[1]));
        eprintln!("{prompt}: {:.1} dB, {shortest:.1?}", likeness[likeness.len() - 1]);
    }
    drop(held);
    likeness.sort_by(f64::total_cmp);
    let (least, middle) = (likeness[0], likeness[likeness.len() / 2]);
    let [full, int8] = shortest.map(|time| time.as_secs_f64());
    eprintln!("a guided step: {full:.4} s, {int8:.4} s in int8 ({:.2} ×)", full / int8);
    eprintln!("likeness: {least:.1} dB at least, {middle:.1} in the middle");
}
