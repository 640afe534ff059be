//! The worker with an engine that follows a script, one tick at a time.

mod buckets;
mod failures;
mod jobs;
mod ledger;
mod loading;
mod memory;
mod pictures;
mod reservations;
mod saving;
mod waiting;

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use super::engine_slot::PANICKED;
use super::*;
use crate::domain::{GenerationInput, ImageSource, JobId, JobStatus, NewImage, NewJob, Policy, Progress};
use crate::engine::{EngineError, Placement, Preparation, PreparationOf, Residency, Spare};
use crate::fetch::tests::Server;
use crate::queue::WorkerCounts;
use crate::queue::tests::{TestQueue, endpoint, new_job};
use crate::runtime::Device;
use ledger::{Bytes, Ledger};

const LONG: Duration = Duration::from_hours(1);

/// What the engines did, and how many were loaded.
#[derive(Default)]
struct Log {
    steps: Cell<u32>,
    loaded: Cell<u32>,
    pauses: RefCell<Vec<Duration>>,
    /// What the last job started from.
    pictures: RefCell<[Option<ImageSource>; 2]>,
    /// Why no engine can be loaded.
    refusal: RefCell<Option<EngineError>>,
    /// The number of jobs at which stepping them together runs out of memory.
    too_many: Cell<Option<usize>>,
    /// Whether what is being made stays unfinished.
    is_making_slow: Arc<AtomicBool>,
    made: Cell<u32>,
    /// How often an engine was asked what a job needs.
    prepared: Cell<u32>,
    /// What each thing that was made has grown by since.
    grown: Cell<u64>,
    /// What the engine keeps beyond what a job needs.
    kept: Cell<u64>,
    /// What the checker takes that looks at pictures.
    checker: Cell<u64>,
    memory: Arc<Ledger>,
}

/// What is made for prompts that begin with "make".
struct Made {
    prompt: String,
    used_at: Instant,
    bytes: Bytes,
}

/// Does what the prompt says, such as "panic in step", "error in begin" or "memory in finish". For "make a fox" it first
/// makes something, once, that it keeps. Draws anything else.
struct Scripted {
    log: Rc<Log>,
    capacity: usize,
    size: u64,
    made: Vec<Rc<Made>>,
    _bytes: Bytes,
}

struct ScriptedModel {
    log: Rc<Log>,
    capacity: usize,
    placement: Placement,
}

struct Drawing {
    prompt: String,
    seed: u64,
    done: u32,
    steps: u32,
    _made: Option<Rc<Made>>,
    _bytes: Bytes,
}

impl Scripted {
    fn new(log: Rc<Log>, capacity: usize, size: u64) -> Self {
        let bytes = Bytes::new(&log.memory, size);
        Self { log, capacity, size, made: Vec::new(), _bytes: bytes }
    }

    fn act(prompt: &str, stage: &str) -> Result<(), EngineError> {
        if prompt == format!("panic in {stage}") {
            std::panic::resume_unwind(Box::new("as the script says"));
        }
        match prompt.strip_suffix(stage) {
            Some("error in ") => Err(EngineError::Other("it broke".to_owned())),
            Some("memory in ") => Err(EngineError::OutOfMemory("Failed to allocate memory".to_owned())),
            _ => Ok(()),
        }
    }
}

impl Engine for Scripted {
    type Generation = Drawing;
    type Prepared = Option<Rc<Made>>;
    type Made = Made;

    fn prepare(&mut self, input: &GenerationInput) -> Result<PreparationOf<Self>, EngineError> {
        Self::act(&input.prompt, "prepare")?;
        self.log.prepared.set(self.log.prepared.get() + 1);
        let prompt = input.prompt.clone();
        if !prompt.contains("make") {
            return Ok(Preparation::ready(None, 0));
        }
        if let Some(made) = self.made.iter().find(|made| made.prompt == prompt) {
            return Ok(Preparation::ready(Some(Rc::clone(made)), self.size));
        }
        let (ledger, size) = (Arc::clone(&self.log.memory), self.size);
        let is_slow = Arc::clone(&self.log.is_making_slow);
        let make = move |given_up: &AtomicBool| {
            let bytes = Bytes::new(&ledger, size);
            Self::act(&prompt, "make")?;
            while is_slow.load(Ordering::SeqCst) && !given_up.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(Made { prompt, used_at: Instant::now(), bytes })
        };
        let key = |thing: &str| {
            let mut hasher = DefaultHasher::new();
            thing.hash(&mut hasher);
            hasher.finish()
        };
        let keys = input.prompt.split(" and ").map(key).collect();
        Ok(Preparation::to_make(keys, size, 0, Box::new(make)))
    }

    fn keep(&mut self, made: Made) -> Option<Rc<Made>> {
        self.log.made.set(self.log.made.get() + 1);
        self.made.push(Rc::new(made));
        self.made.last().cloned()
    }

    fn begin(
        &mut self,
        made: Option<Rc<Made>>,
        input: &GenerationInput,
        seed: u64,
    ) -> Result<Drawing, EngineError> {
        Self::act(&input.prompt, "begin")?;
        *self.log.pictures.borrow_mut() = [input.init_image.clone(), input.mask.clone()];
        let bytes = Bytes::new(&self.log.memory, self.size * (u64::from(input.num_outputs) - 1));
        let (prompt, steps) = (input.prompt.clone(), input.num_inference_steps);
        Ok(Drawing { prompt, seed, done: 0, steps, _made: made, _bytes: bytes })
    }

    fn step(&mut self, batch: &mut [&mut Drawing]) -> Result<(), EngineError> {
        self.log.steps.set(self.log.steps.get() + 1);
        if self.log.too_many.get().is_some_and(|jobs| batch.len() >= jobs) {
            return Self::act("memory in step", "step");
        }
        for drawing in batch {
            Self::act(&drawing.prompt, "step")?;
            drawing.done += 1;
        }
        Ok(())
    }

    fn progress(&self, drawing: &Drawing) -> (u32, u32) {
        (drawing.done, drawing.steps)
    }

    fn preview(&mut self, drawing: &Drawing) -> Option<Vec<u8>> {
        Self::act(&drawing.prompt, "preview").ok()?;
        Some(format!("{} of {}", drawing.done, drawing.steps).into_bytes())
    }

    fn warnings(&self, drawing: &Drawing) -> Vec<String> {
        match drawing.prompt.as_str() {
            "warn" => vec!["it is a script".to_owned()],
            _ => Vec::new(),
        }
    }

    fn save(&self, drawing: &Drawing) -> Option<Vec<u8>> {
        Self::act(&drawing.prompt, "save").ok()?;
        (drawing.done > 0).then(|| format!("{} after {}", drawing.prompt, drawing.done).into_bytes())
    }

    fn resume(&mut self, drawing: &mut Drawing, saved: &[u8]) -> Result<bool, EngineError> {
        Self::act(&drawing.prompt, "resume")?;
        let done = std::str::from_utf8(saved)
            .ok()
            .and_then(|saved| saved.strip_prefix(&drawing.prompt)?.strip_prefix(" after ")?.parse().ok());
        drawing.done = done.unwrap_or(0);
        Ok(done.is_some())
    }

    fn cut_short(&mut self, drawing: &mut Drawing) -> Result<(), EngineError> {
        Self::act(&drawing.prompt, "cut")?;
        drawing.prompt = format!("{} after {} steps", drawing.prompt, drawing.done);
        Ok(())
    }

    fn finish(&mut self, drawing: Drawing) -> Result<Vec<NewImage>, EngineError> {
        Self::act(&drawing.prompt, "finish")?;
        Ok(vec![NewImage { seed: drawing.seed, png: Some(drawing.prompt.into_bytes()), prompts: None }])
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    /// As if each job's further pictures took as much again.
    fn memory_for(&self, jobs: &[&GenerationInput]) -> u64 {
        let further: u64 = jobs.iter().map(|job| u64::from(job.num_outputs) - 1).sum();
        let is_checked = jobs.iter().any(|job| !job.nsfw);
        let checker = if is_checked { self.log.checker.get() } else { 0 };
        self.size * (1 + further) + self.log.kept.get() + checker
    }

    fn prepared_memory(&self) -> u64 {
        self.made.iter().map(|made| made.bytes.1 + self.log.grown.get()).sum()
    }

    fn spares(&self) -> Vec<Spare> {
        let spares = self.made.iter().filter(|made| Rc::strong_count(made) == 1);
        spares
            .map(|made| Spare { bytes: made.bytes.1 + self.log.grown.get(), used_at: made.used_at })
            .collect()
    }

    fn drop_spares(&mut self, bytes: u64) {
        let mut freed = 0;
        self.made.retain(|made| {
            let leaves = freed < bytes && Rc::strong_count(made) == 1;
            freed += if leaves { made.bytes.1 + self.log.grown.get() } else { 0 };
            !leaves
        });
    }
}

impl Model for ScriptedModel {
    type Engine = Scripted;

    fn placement(&self) -> Result<Placement, EngineError> {
        Ok(self.placement.clone())
    }

    fn load(&self) -> Result<Scripted, EngineError> {
        self.log.loaded.set(self.log.loaded.get() + 1);
        let refusal = self.log.refusal.borrow().clone();
        let engine = || Scripted::new(Rc::clone(&self.log), self.capacity, self.placement.needs);
        refusal.map_or_else(|| Ok(engine()), Err)
    }
}

/// A model for workers on threads of their own, which cannot share a log.
struct ElsewhereModel(Result<(), &'static str>);

impl Model for ElsewhereModel {
    type Engine = Scripted;

    fn placement(&self) -> Result<Placement, EngineError> {
        Ok(Placement { device: Device::Cpu, needs: 10, budget: None })
    }

    fn load(&self) -> Result<Scripted, EngineError> {
        let engine = || Scripted::new(Rc::default(), 1, 10);
        self.0.map(|()| engine()).map_err(|reason| EngineError::Other(reason.to_owned()))
    }
}

struct Bench {
    test: TestQueue,
    stop: Stop,
    log: Rc<Log>,
    residency: Residency,
}

impl Bench {
    fn new() -> Self {
        let residency = Residency::new(|| {});
        Self { test: TestQueue::new(), stop: Stop::default(), log: Rc::default(), residency }
    }

    fn worker(&self, capacity: usize) -> Worker<ScriptedModel> {
        let placement = Placement { device: card(), needs: 10, budget: None };
        self.try_worker(self.assignment(), capacity, placement).unwrap()
    }

    fn try_worker(
        &self,
        assignment: Assignment,
        capacity: usize,
        placement: Placement,
    ) -> Result<Worker<ScriptedModel>, String> {
        let model = ScriptedModel { log: Rc::clone(&self.log), capacity, placement };
        let mut worker = Worker::new(self.test.queue.clone(), assignment, model, self.stop.clone())?;
        let log = Rc::clone(&self.log);
        worker.pause = Box::new(move |pause| log.pauses.borrow_mut().push(pause));
        Ok(worker)
    }

    fn assignment(&self) -> Assignment {
        assignment(self.residency.slot(&endpoint(), true))
    }

    fn submit(&self, prompt: &str, steps: u32) -> JobId {
        self.test.submit(&input(prompt, steps))
    }

    fn error(&self, id: &JobId) -> String {
        let job = self.test.find(id).unwrap();
        assert_eq!(job.status, JobStatus::Failed);
        job.error.unwrap()
    }

    fn completed(&self, id: &JobId) -> bool {
        self.test.status(id) == Some(JobStatus::Completed)
    }
}

fn assignment(memory: MemorySlot) -> Assignment {
    Assignment {
        endpoint: endpoint(),
        rules: InputRules { takes_images: true, ..InputRules::default() },
        fetcher: Fetcher::new("127.0.0.0/8".parse().unwrap()).unwrap(),
        metrics: Metrics::default(),
        first_load: FirstLoad::Required,
        memory,
        unload_after: None,
        save_every: None,
    }
}

fn card() -> Device {
    Device::Cuda { index: 0, memory_gib: Some(24) }
}

fn input(prompt: &str, steps: u32) -> String {
    serde_json::json!({"prompt": prompt, "num_inference_steps": steps}).to_string()
}

fn work_off<M: Model>(worker: &mut Worker<M>) {
    while worker.tick() == TickOutcome::Worked {}
}

/// Works until all errands are over too.
fn work_off_with_errands<M: Model>(worker: &mut Worker<M>) {
    worker.errands.pauses = [Duration::ZERO; 2];
    loop {
        match worker.tick() {
            TickOutcome::Worked => {}
            TickOutcome::Waiting => thread::park_timeout(LOOK),
            TickOutcome::Idle | TickOutcome::Stopped => return,
        }
    }
}
