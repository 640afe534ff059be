//! A generation that is saved in the middle goes on in another pipeline and ends in the same bytes, whatever was asked.
//! What was saved of something else, or is damaged, is refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/controlnets.rs"]
mod controlnets;
#[path = "golden/pictures.rs"]
#[expect(dead_code, reason = "nothing is compared with a reference here")]
mod pictures;

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stablehand::diffusion::{AddOnFolders, Generation, Model, Pipeline};
use stablehand::domain::{GenerationInput, ImageSource};
use stablehand::runtime::{CpuSettings, CpuSpeed, DeviceChoice, Runtime};
use tempfile::TempDir;

use self::controlnets::diffusers;
use self::pictures::{start_mask, start_picture};

const SIDE: u32 = 64;
const SEED: u64 = 11;
/// Before what is saved: the format's number and a checksum.
const HEAD: usize = 4 + 32;

/// Two pipelines of the same model, as in two processes.
struct Studio {
    first: Pipeline,
    second: Pipeline,
    dir: TempDir,
}

fn folders(dir: &Path) -> AddOnFolders {
    AddOnFolders {
        loras: golden("lora"),
        controlnets: dir.join("controlnets"),
        embeddings: dir.join("embeddings"),
        wildcards: dir.join("wildcards"),
        upscalers: dir.join("upscalers"),
        tiny_vaes: "/nowhere".into(),
        lora_memory: u64::MAX,
        look_every: Duration::ZERO,
    }
}

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

fn load(dir: &Path) -> Pipeline {
    load_with(dir, CpuSettings::default())
}

fn load_with(dir: &Path, cpu: CpuSettings) -> Pipeline {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap().with_cpu(cpu);
    Model::open(None, Some(folders(dir))).unwrap().load(&runtime).unwrap()
}

impl Studio {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        diffusers("a", &dir.path().join("controlnets"));
        fs::create_dir_all(dir.path().join("upscalers")).unwrap();
        fs::copy(golden("upscalers/x2.safetensors"), dir.path().join("upscalers/x2.safetensors")).unwrap();
        fs::create_dir_all(dir.path().join("embeddings")).unwrap();
        fs::copy(
            golden("lora").join("word.embedding.safetensors"),
            dir.path().join("embeddings/zorblax.safetensors"),
        )
        .unwrap();
        fs::create_dir_all(dir.path().join("wildcards")).unwrap();
        fs::write(dir.path().join("wildcards/colour.txt"), "red\nblue\ngreen\n").unwrap();
        Self { first: load(dir.path()), second: load(dir.path()), dir }
    }

    fn input(&self, fields: &Value) -> GenerationInput {
        let mut request =
            json!({"prompt": "a red heart", "width": SIDE, "height": SIDE, "num_inference_steps": 5});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        GenerationInput::parse(&request, self.first.model().rules()).unwrap()
    }

    /// Draws it without a break, and once more with a break after every step. The pictures are the same, and so is what
    /// the generation says of itself.
    fn assert_resumes(&mut self, fields: &Value) {
        let input = self.input(fields);
        let mut whole = self.first.begin(&input, SEED).unwrap();
        assert!(self.first.save(&whole).is_none(), "there is nothing to go on with: {fields}");
        let mut saved = Vec::new();
        while !whole.is_done() {
            self.first.step(&mut [&mut whole]).unwrap();
            saved.extend(self.first.save(&whole).map(|saved| (whole.progress(), saved)));
        }
        assert!(saved.len() > 2, "{fields}");
        let expected = files(&mut self.first, &whole);
        for (progress, saved) in saved {
            let mut resumed = self.second.begin(&input, SEED).unwrap();
            assert!(self.second.resume(&mut resumed, &saved).unwrap(), "{fields} at {progress:?}");
            let (done, steps) = resumed.progress();
            assert!(
                steps == progress.1 && done <= progress.0,
                "{fields}: {progress:?}, then {done} of {steps}"
            );
            finish(&mut self.second, &mut resumed);
            assert!(
                files(&mut self.second, &resumed) == expected,
                "{fields} after {progress:?}: other bytes"
            );
            assert_eq!(resumed.warnings(), whole.warnings(), "{fields}");
        }
    }

    /// What is saved after two steps.
    fn saved(&mut self, input: &GenerationInput, seed: u64) -> Vec<u8> {
        let mut generation = self.first.begin(input, seed).unwrap();
        (0..2).for_each(|_| self.first.step(&mut [&mut generation]).unwrap());
        self.first.save(&generation).unwrap()
    }
}

fn finish(pipeline: &mut Pipeline, generation: &mut Generation) {
    while !generation.is_done() {
        pipeline.step(&mut [generation]).unwrap();
    }
}

/// The files of the pictures, their text included, with their seeds and prompts.
fn files(pipeline: &mut Pipeline, generation: &Generation) -> Vec<(u64, Vec<u8>, String)> {
    let pictures = pipeline.finish(generation).unwrap();
    pictures
        .into_iter()
        .map(|picture| (picture.seed, picture.png, format!("{:?}", picture.prompts)))
        .collect()
}

fn base64(picture: &ImageSource) -> String {
    use base64::Engine as _;
    let ImageSource::Bytes(bytes) = picture else { panic!("a picture") };
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn text_goes_on_to_the_same_bytes() {
    let long = "a red heart with a blue rocket beside a green tree on a yellow background ".repeat(12);
    let mut studio = Studio::new();
    for fields in [
        json!({"num_outputs": 2, "scheduler": "EULER-A"}),
        json!({"prompt": long, "negative_prompt": long, "scheduler": "UNIPC"}),
        json!({"prompt": "a (red:1.3) heart AND a [cat:dog:0.5] :0.6", "scheduler": "K-LMS"}),
        json!({"scheduler": "DPM-SDE", "noise": "cuda", "num_outputs": 2}),
        json!({"scheduler": "DPM-3M-SDE", "spacing": "karras", "guidance_rescale": 0.5, "guidance_end": 0.6}),
        json!({"scheduler": "EULER-D", "s_churn": 3}),
        json!({"scheduler": "PNDM", "tiling": true}),
        json!({"prompt": "a {red|blue|green} __colour__ heart", "wildcards": true, "num_outputs": 2}),
        json!({"subseed": 5, "subseed_strength": 0.3, "seed_resize_width": 128, "scheduler": "HEUN"}),
        json!({"cache_interval": 3, "num_inference_steps": 8, "num_outputs": 2, "scheduler": "EULER-A"}),
        json!({"cache_interval": 2, "scheduler": "HEUN", "tiling": true, "prompt": "a [cat:dog:0.5] AND a heart"}),
        json!({"cache_interval": 4, "num_inference_steps": 12, "scheduler": "UNIPC", "lora": "kohya"}),
        json!({"precision": "int8", "num_outputs": 2, "scheduler": "EULER-A"}),
        json!({"prompt": "zorblax <lora:peft:0.5>", "lora": "kohya", "lora_scale": 0.7, "scheduler": "DPM-M"}),
    ] {
        studio.assert_resumes(&fields);
    }
}

#[test]
fn pictures_go_on_to_the_same_bytes() {
    let (picture, mask) = (base64(&start_picture(SIDE, SIDE)), base64(&start_mask(SIDE, SIDE)));
    let mut studio = Studio::new();
    for fields in [
        json!({"prompt_strength": 0.8}),
        json!({"mask": mask, "prompt_strength": 1.0, "scheduler": "DPM-S"}),
        json!({"mask": mask, "prompt_strength": 0.8, "inpaint_fill": "noise", "scheduler": "EULER-A", "num_outputs": 2}),
        json!({"mask": mask, "inpaint_area": "masked", "mask_blur": 4, "prompt_strength": 0.9}),
        json!({"controlnet": [{"model": "a", "image": picture, "end": 0.7}], "prompt_strength": 0.9}),
    ] {
        let mut fields = fields;
        fields["init_image"] = json!(picture);
        studio.assert_resumes(&fields);
    }
    studio.assert_resumes(&json!({
        "controlnet": [{"model": "a", "image": picture}], "lora": "kohya", "scheduler": "DEIS"
    }));
}

#[test]
fn second_passes_go_on_to_the_same_bytes() {
    let mut studio = Studio::new();
    let (picture, mask) = (base64(&start_picture(SIDE, SIDE)), base64(&start_mask(SIDE, SIDE)));
    let controlnet = json!({"model": "a", "image": picture});
    for (hires, beside) in [
        (json!({"scale": 2, "strength": 0.6}), json!({"num_outputs": 2, "scheduler": "EULER-A"})),
        (
            json!({"scale": 1.5, "upscaler": "x2", "strength": 0.8, "prompt": "a {blue|green} heart", "scheduler": "UNIPC"}),
            json!({"num_outputs": 2, "prompt": "a {red|pink} heart", "wildcards": true}),
        ),
        (
            json!({"scale": 2, "strength": 1, "steps": 5}),
            json!({"cache_interval": 2, "scheduler": "EULER-A"}),
        ),
        (json!({"scale": 2, "upscaler": "lanczos", "steps": 4, "strength": 0.7}), json!({"num_outputs": 3})),
        (
            json!({"scale": 2, "upscaler": "lanczos", "strength": 0.7}),
            json!({"vae": "tiny", "num_outputs": 2}),
        ),
        (
            json!({"scale": 1.5, "strength": 0.7}),
            json!({"init_image": picture, "mask": mask, "mask_blur": 2, "prompt_strength": 0.9, "controlnet": controlnet}),
        ),
        (
            json!({"scale": 2, "upscaler": "nearest", "strength": 0.7}),
            json!({"init_image": picture, "mask": mask, "inpaint_area": "masked", "lora": "kohya", "num_outputs": 2}),
        ),
    ] {
        let mut fields = json!({"hires": hires, "num_inference_steps": 3});
        fields.as_object_mut().unwrap().extend(beside.as_object().unwrap().clone());
        studio.assert_resumes(&fields);
    }
}

#[test]
fn what_was_saved_of_something_else_is_refused_and_changes_nothing() {
    let mut studio = Studio::new();
    let (picture, other) = (base64(&start_picture(SIDE, SIDE)), base64(&start_mask(SIDE, SIDE)));
    let fields = json!({
        "scheduler": "EULER-A", "init_image": picture, "lora": "kohya", "prompt_strength": 0.8,
        "controlnet": [{"model": "a", "image": picture}],
    });
    let input = studio.input(&fields);
    let saved = studio.saved(&input, SEED);
    for change in [
        json!({"prompt": "a blue heart"}),
        json!({"num_inference_steps": 6}),
        json!({"guidance_scale": 3}),
        json!({"scheduler": "EULER-D"}),
        json!({"init_image": other}),
        json!({"controlnet": [{"model": "a", "image": other}]}),
        json!({"lora_scale": 0.5}),
        json!({"lora": "peft"}),
        json!({"num_outputs": 2}),
    ] {
        let mut fields = fields.clone();
        fields.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let input = studio.input(&fields);
        let mut generation = studio.second.begin(&input, SEED).unwrap();
        let before = generation.latents().clone();
        assert!(!studio.second.resume(&mut generation, &saved).unwrap(), "{change}");
        assert!(generation.progress().0 == 0 && *generation.latents() == before, "{change}");
    }
    let mut of_another_seed = studio.second.begin(&input, SEED + 1).unwrap();
    assert!(!studio.second.resume(&mut of_another_seed, &saved).unwrap());
    let mut same = studio.second.begin(&input, SEED).unwrap();
    assert!(studio.second.resume(&mut same, &saved).unwrap());

    // Other convolutions, or another number of threads: the last bits would be others.
    let usual = studio.first.means();
    for (speed, threads) in
        [(CpuSpeed::Fast, None), (CpuSpeed::Memory, None), (CpuSpeed::Auto, NonZero::new(5))]
    {
        let mut pipeline = load_with(studio.dir.path(), CpuSettings { speed, threads });
        let mut generation = pipeline.begin(&input, SEED).unwrap();
        let resumed = pipeline.resume(&mut generation, &saved).unwrap();
        assert_eq!(resumed, pipeline.means() == usual, "{speed} {threads:?}");
    }

    // A file of the same name that was changed.
    diffusers("b", &studio.dir.path().join("elsewhere"));
    let file = "diffusion_pytorch_model.safetensors";
    let changed = studio.dir.path().join("controlnets/a").join(file);
    fs::copy(studio.dir.path().join("elsewhere/b").join(file), &changed).unwrap();
    let now = std::time::SystemTime::now() + Duration::from_secs(60);
    fs::File::options().write(true).open(&changed).unwrap().set_modified(now).unwrap();
    let mut generation = studio.second.begin(&input, SEED).unwrap();
    assert!(!studio.second.resume(&mut generation, &saved).unwrap());

    // An upscaler that was changed between the passes.
    let enlarged = studio.input(&json!({"hires": {"scale": 2, "upscaler": "x2"}, "num_inference_steps": 2}));
    let saved = studio.saved(&enlarged, SEED);
    let mut generation = studio.second.begin(&enlarged, SEED).unwrap();
    assert!(studio.second.resume(&mut generation, &saved).unwrap());
    let upscaler = studio.dir.path().join("upscalers/x2.safetensors");
    fs::File::options().write(true).open(upscaler).unwrap().set_modified(now).unwrap();
    let mut generation = studio.second.begin(&enlarged, SEED).unwrap();
    assert!(!studio.second.resume(&mut generation, &saved).unwrap());

    // Words that stand for others now.
    let drawn = studio.input(&json!({"prompt": "a __colour__ heart", "wildcards": true}));
    let saved = studio.saved(&drawn, SEED);
    fs::write(studio.dir.path().join("wildcards/colour.txt"), "black\n").unwrap();
    let mut generation = studio.second.begin(&drawn, SEED).unwrap();
    assert!(!studio.second.resume(&mut generation, &saved).unwrap());
}

/// With a checksum that fits.
fn sealed(content: &[u8], head: &[u8]) -> Vec<u8> {
    [&head[..4], &Sha256::digest(content), content].concat()
}

#[test]
fn damaged_and_hostile_bytes_never_panic() {
    let mut studio = Studio::new();
    let first = studio.input(
        &json!({"scheduler": "UNIPC", "hires": {"scale": 2, "upscaler": "nearest"}, "num_outputs": 2}),
    );
    let second = studio.input(&json!({"scheduler": "PNDM", "num_inference_steps": 4}));
    for input in [first, second] {
        let saved = studio.saved(&input, SEED);
        let mut resumes = |saved: &[u8]| {
            let mut generation = studio.second.begin(&input, SEED).unwrap();
            let resumed = studio.second.resume(&mut generation, saved).unwrap();
            if resumed {
                // Whatever they are, the steps have to end.
                while !generation.is_done() {
                    studio.second.step(&mut [&mut generation]).unwrap();
                }
                let _ = studio.second.finish(&generation);
            }
            resumed
        };
        assert!(resumes(&saved));
        for end in [0, 1, 3, 4, HEAD - 1, HEAD, HEAD + 1, saved.len() / 2, saved.len() - 1] {
            assert!(!resumes(&saved[..end]), "cut to {end}");
            if end > HEAD {
                assert!(!resumes(&sealed(&saved[HEAD..end], &saved)), "cut to {end} with a checksum");
            }
        }
        assert!(!resumes(&[&saved[..], &[0]].concat()));
        for at in [0, 5, HEAD, HEAD + 20, saved.len() - 1] {
            let mut flipped = saved.clone();
            flipped[at] ^= 0x40;
            assert!(!resumes(&flipped), "a flipped bit at {at}");
        }
        // Every byte of the numbers that come before the latents, and many of the others.
        let content = &saved[HEAD..];
        let mut random = 0x5eed_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % 1_000_000_007).unwrap()
        };
        let mut places: Vec<_> = (0..1).chain(33..33 + 8 + 32).collect();
        places.extend((0..30).map(|_| next() % content.len()));
        // The numbers behind the latents and the generators.
        places.extend(content.len() - 40..content.len());
        for at in places {
            let mut hostile = content.to_vec();
            hostile[at] = u8::try_from(next() % 256).unwrap();
            resumes(&sealed(&hostile, &saved));
        }
    }
}
