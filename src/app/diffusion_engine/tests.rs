//! A worker with the real pipeline and the built-in model: its memory, and LoRAs that are merged beside its jobs.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use super::*;
use crate::diffusion::AddOnFolders;
use crate::domain::{ImageSize, JobId, JobStatus};
use crate::engine::{Residency, Stage};
use crate::fetch::Fetcher;
use crate::metrics::Metrics;
use crate::queue::Stop;
use crate::queue::tests::{TestQueue, endpoint};
use crate::worker::{Assignment, FirstLoad, TickOutcome, Worker};

/// A UNet's LoRA, and one for the text encoder too.
const LORAS: [(&str, &str); 2] = [("unet", "original_half"), ("both", "kohya")];

fn add_ons(loras: &Path) -> AddOnFolders {
    AddOnFolders {
        loras: loras.to_owned(),
        controlnets: loras.join("none"),
        embeddings: loras.join("none"),
        wildcards: loras.join("none"),
        upscalers: loras.join("upscalers"),
        tiny_vaes: loras.join("tiny-vaes"),
        lora_memory: u64::MAX,
        look_every: Duration::ZERO,
    }
}

struct Studio {
    test: TestQueue,
    residency: Residency,
    model: PipelineModel,
    loras: TempDir,
}

impl Studio {
    fn new() -> Self {
        let loras = tempfile::tempdir().unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/lora");
        for (name, file) in LORAS {
            let to = loras.path().join(format!("{name}.safetensors"));
            fs::copy(golden.join(format!("{file}.safetensors")), to).unwrap();
        }
        let add_ons = add_ons(loras.path());
        let model = PipelineModel {
            endpoint: endpoint(),
            model: diffusion::Model::open(None, Some(add_ons)).unwrap(),
            device: DeviceChoice::Cpu,
            cpu: CpuSettings::default(),
            memory_budget: None,
        };
        Self { test: TestQueue::new(), residency: Residency::new(|| {}), model, loras }
    }

    fn with_budget(mut self, budget: u64) -> Self {
        self.model.memory_budget = Some(budget);
        self
    }

    /// The same model with another `--lora-memory`.
    fn with_lora_memory(&self, lora_memory: u64) -> PipelineModel {
        let add_ons = AddOnFolders { lora_memory, ..add_ons(self.loras.path()) };
        PipelineModel { model: diffusion::Model::open(None, Some(add_ons)).unwrap(), ..self.model.clone() }
    }

    fn worker(&self) -> Worker<PipelineModel> {
        let assignment = Assignment {
            endpoint: endpoint(),
            rules: self.model.model.rules().clone(),
            fetcher: Fetcher::new("127.0.0.0/8".parse().unwrap()).unwrap(),
            metrics: Metrics::default(),
            first_load: FirstLoad::Required,
            memory: self.residency.slot(&endpoint(), true),
            unload_after: None,
            save_every: None,
        };
        Worker::new(self.test.queue.clone(), assignment, self.model.clone(), Stop::default()).unwrap()
    }

    fn submit(&self, prompt: &str, steps: u32) -> JobId {
        let input = serde_json::json!({
            "prompt": prompt, "num_inference_steps": steps, "width": 64, "height": 64
        });
        self.test.submit(&input.to_string())
    }

    fn held(&self) -> u64 {
        self.residency.held(&Device::Cpu)
    }

    fn completed(&self, id: &JobId) -> bool {
        self.test.status(id) == Some(JobStatus::Completed)
    }

    /// The bytes of an engine, and of a copy with the LoRA of this name.
    fn sizes(&self, lora: &str) -> (u64, u64) {
        let mut pipeline = self.model.load().unwrap();
        let prompt = serde_json::json!({"prompt": format!("a fox<lora:{lora}>")});
        let input = GenerationInput::parse(&prompt, self.model.model.rules()).unwrap();
        (Engine::memory_for(&pipeline, &[]), Engine::prepare(&mut pipeline, &input).unwrap().bytes)
    }
}

/// Until nothing is left to do. The largest number of bytes that were held.
fn work_off(studio: &Studio, worker: &mut Worker<PipelineModel>) -> u64 {
    let mut most = 0;
    loop {
        let outcome = worker.tick();
        most = most.max(studio.held());
        match outcome {
            TickOutcome::Worked => {}
            TickOutcome::Waiting => thread::park_timeout(Duration::from_millis(20)),
            TickOutcome::Idle | TickOutcome::Stopped => return most,
        }
    }
}

#[test]
fn a_lora_at_two_scales_stays_within_the_budget() {
    let studio = Studio::new();
    let (engine, copy) = studio.sizes("unet");
    // Room for one copy and a half beside the model.
    let budget = engine + copy + copy / 2;
    let studio = studio.with_budget(budget);
    let mut worker = studio.worker();
    assert_eq!(studio.held(), engine);
    for prompt in ["a fox<lora:unet:1>", "a fox<lora:unet:0.5>", "a fox<lora:unet:1>", "a fox"] {
        let id = studio.submit(prompt, 1);
        let most = work_off(&studio, &mut worker);
        assert!(studio.completed(&id), "{prompt}: {:?}", studio.test.find(&id));
        assert!(most <= budget, "{prompt}: {most} of {budget}");
        assert_eq!(studio.held(), engine + copy, "{prompt}: one copy is kept");
    }
}

/// An engine with four images in a call, and a request that fills one: more than a usual call.
fn four_at_once(model: &PipelineModel) -> Pipeline {
    model.load().unwrap().with_images_per_call(4)
}

fn drawing(pipeline: &mut Pipeline, input: &GenerationInput) -> Work {
    Work::Drawing(Box::new(pipeline.begin(input, 1).unwrap()))
}

fn large(studio: &Studio, prompt: &str) -> GenerationInput {
    let request = serde_json::json!({"prompt": prompt, "num_inference_steps": 2, "num_outputs": 4});
    GenerationInput::parse(&request, studio.model.model.rules()).unwrap()
}

#[test]
fn a_job_with_a_lora_counts_the_same_before_while_and_after_its_unet_has_run() {
    let studio = Studio::new();
    let mut pipeline = four_at_once(&studio.model);
    let input = large(&studio, "a fox<lora:unet>");
    let held = |pipeline: &Pipeline, jobs: &[&GenerationInput]| {
        Engine::memory_for(pipeline, jobs) + Engine::prepared_memory(pipeline)
    };
    let preparation = Engine::prepare(&mut pipeline, &input).unwrap();
    let (before, to_make) = (held(&pipeline, &[&input]), preparation.bytes);
    let Stage::ToMake { make, .. } = preparation.stage else { panic!("it is made already") };
    let made = make(&AtomicBool::new(false)).unwrap();
    let prepared = Engine::keep(&mut pipeline, made);
    assert_eq!(held(&pipeline, &[&input]), before + to_make);
    let mut generation = Engine::begin(&mut pipeline, prepared, &input, 1).unwrap();
    Engine::step(&mut pipeline, &mut [&mut generation]).unwrap();
    assert_eq!(held(&pipeline, &[&input]), before + to_make, "its session keeps what was reserved for it");
    let again = Engine::prepare(&mut pipeline, &input).unwrap();
    assert!(Engine::memory_for(&pipeline, &[&input]) + again.bytes <= before + to_make, "no refusal either");
}

#[test]
fn a_lora_without_an_effect_on_the_unet_takes_no_unet_call_of_its_own() {
    let studio = Studio::new();
    let mut pipeline = four_at_once(&studio.model);
    let plain = large(&studio, "a fox");
    for lora in ["<lora:both:0>", "<lora:both:1:0>"] {
        let input = large(&studio, &format!("a fox{lora}"));
        let _ = Engine::prepare(&mut pipeline, &input).unwrap();
        let together = Engine::memory_for(&pipeline, &[&input, &plain]);
        assert_eq!(together, Engine::memory_for(&pipeline, &[&plain, &plain]), "{lora}");
    }
    let input = large(&studio, "a fox<lora:both>");
    let _ = Engine::prepare(&mut pipeline, &input).unwrap();
    let together = Engine::memory_for(&pipeline, &[&input, &plain]);
    assert!(together > Engine::memory_for(&pipeline, &[&plain, &plain]), "its copy has one");
}

#[test]
fn unused_copies_stay_within_the_limit_with_what_their_unets_keep() {
    let studio = Studio::new();
    let mut pipeline = four_at_once(&studio.with_lora_memory(0));
    let input = large(&studio, "a fox<lora:unet>");
    let mut generation = drawing(&mut pipeline, &input);
    Engine::step(&mut pipeline, &mut [&mut generation]).unwrap();
    drop(generation);
    assert_eq!(Engine::prepared_memory(&pipeline), 0, "nothing may be kept");

    let (_, copy) = studio.sizes("unet");
    let mut pipeline = four_at_once(&studio.with_lora_memory(copy));
    let mut generation = drawing(&mut pipeline, &input);
    // After the first of two steps its session keeps more than a usual call takes.
    Engine::step(&mut pipeline, &mut [&mut generation]).unwrap();
    drop(generation);
    assert!(Engine::prepared_memory(&pipeline) > copy);
    pipeline.trim_copies();
    assert_eq!(Engine::prepared_memory(&pipeline), 0, "it is too large by now");
}

#[test]
fn a_lora_beyond_the_budget_is_refused_and_the_sentence_says_what_to_change() {
    let studio = Studio::new();
    let (engine, copy) = studio.sizes("both");
    let budget = engine + copy / 2;
    let studio = studio.with_budget(budget);
    // With the encoded prompts.
    let pipeline = studio.model.load().unwrap();
    let small =
        GenerationInput { size: ImageSize { width: 64, height: 64 }, ..GenerationInput::new("a fox") };
    let needed = Engine::memory_for(&pipeline, &[&small]) + copy;
    let mut worker = studio.worker();
    let refused = studio.submit("a fox<lora:both>", 1);
    work_off(&studio, &mut worker);
    let size = bytesize::ByteSize;
    assert_eq!(
        studio.test.find(&refused).unwrap().error.unwrap(),
        format!(
            "This needs about {} of memory ({} of it for its LoRAs), and models may use {}: ask for a picture without \
             LoRAs, or let the server draw with a larger --memory-budget or on another --device.",
            size(needed),
            size(copy),
            size(budget)
        )
    );
    let without = studio.submit("a fox", 1);
    work_off(&studio, &mut worker);
    assert!(studio.completed(&without));
}

#[test]
fn a_job_is_stepped_while_a_lora_is_merged_for_another() {
    let studio = Studio::new();
    let (_, copy) = studio.sizes("both");
    // Beside the usual call, the encoded prompts of two jobs.
    let small =
        GenerationInput { size: ImageSize { width: 64, height: 64 }, ..GenerationInput::new("a fox") };
    let engine = Engine::memory_for(&studio.model.load().unwrap(), &[&small, &small]);
    let mut worker = studio.worker();
    let (with_lora, plain) = (studio.submit("a fox<lora:both>", 3), studio.submit("a fox", 3));
    assert_eq!(worker.tick(), TickOutcome::Worked);
    // The first job was taken first. Whatever the thread that merges has done, nobody has looked yet.
    assert_eq!(worker.progress_of(&plain), Some((1, 3)));
    assert_eq!(worker.progress_of(&with_lora), None);
    assert_eq!(studio.held(), engine + copy, "reserved before it is merged");
    work_off(&studio, &mut worker);
    assert!(studio.completed(&plain) && studio.completed(&with_lora));

    let mut pipeline = studio.model.load().unwrap();
    let job = studio.test.find(&with_lora).unwrap();
    let value = serde_json::from_str(&job.input).unwrap();
    let input = GenerationInput::parse(&value, studio.model.model.rules()).unwrap();
    let drawn = pipeline.draw(&input, job.seed).unwrap().remove(0);
    let stored = studio.test.run(studio.test.queue.image(&endpoint(), &with_lora, 0)).unwrap().unwrap();
    assert!(stored == drawn.png, "the same picture as without a worker");
}

#[test]
fn a_broken_lora_fails_its_job_with_its_name() {
    let studio = Studio::new();
    fs::write(studio.loras.path().join("broken.safetensors"), b"nothing").unwrap();
    let mut worker = studio.worker();
    let (broken, next) = (studio.submit("a fox<lora:broken>", 1), studio.submit("a fox", 1));
    work_off(&studio, &mut worker);
    let error = studio.test.find(&broken).unwrap().error.unwrap();
    assert!(error.starts_with("The model failed: the LoRA broken cannot be used: "), "{error}");
    assert!(studio.completed(&next));
}

#[test]
fn a_picture_is_upscaled_as_a_job_of_the_queue_tile_by_tile() {
    let studio = Studio::new();
    let folder = studio.loras.path().join("upscalers");
    fs::create_dir(&folder).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/upscalers/x2.safetensors");
    fs::copy(golden, folder.join("x2.safetensors")).unwrap();
    fs::write(folder.join("broken.pth"), b"nothing").unwrap();
    let picture = diffusion::RgbImage { width: 200, height: 40, pixels: vec![99; 200 * 40 * 3] };
    let picture = STANDARD.encode(diffusion::encode_png(&picture, &[]).unwrap());
    let upscale = |model: &str| {
        let input = serde_json::json!({ "init_image": picture, "upscale": { "model": model, "scale": 1.5 } });
        studio.test.submit(&input.to_string())
    };
    let mut worker = studio.worker();
    let (model, filter, broken) = (upscale("x2"), upscale("nearest"), upscale("broken"));
    assert_eq!(worker.tick(), TickOutcome::Worked);
    assert_eq!(worker.progress_of(&model), Some((1, 3)), "of two tiles, and the last size");
    work_off(&studio, &mut worker);
    for job in [&model, &filter] {
        assert!(studio.completed(job), "{:?}", studio.test.find(job).unwrap().error);
        let png = studio.test.run(studio.test.queue.image(&endpoint(), job, 0)).unwrap().unwrap();
        let size = diffusion::decode_image(&png).unwrap().size();
        assert_eq!((size.width, size.height), (300, 60));
    }
    let error = studio.test.find(&broken).unwrap().error.unwrap();
    assert!(error.contains("broken.pth"), "{error}");
}
