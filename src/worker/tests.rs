//! The worker with an engine that follows a script, one tick at a time.

mod buckets;
mod failures;
mod jobs;
mod loading;
mod memory;
mod pictures;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::engine_slot::PANICKED;
use super::*;
use crate::domain::{GenerationInput, ImageSource, JobId, JobStatus, NewImage, NewJob, Policy, Progress};
use crate::engine::{EngineError, Placement, Residency};
use crate::fetch::tests::Server;
use crate::queue::WorkerCounts;
use crate::queue::tests::{TestQueue, endpoint, new_job};
use crate::runtime::Device;

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
}

/// Does what the prompt says, such as "panic in step", "error in begin" or "memory in finish". Draws anything else.
struct Scripted {
    log: Rc<Log>,
    capacity: usize,
    size: u64,
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
}

impl Scripted {
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

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Drawing, EngineError> {
        Self::act(&input.prompt, "begin")?;
        *self.log.pictures.borrow_mut() = [input.init_image.clone(), input.mask.clone()];
        Ok(Drawing { prompt: input.prompt.clone(), seed, done: 0, steps: input.num_inference_steps })
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

    fn finish(&mut self, drawing: Drawing) -> Result<Vec<NewImage>, EngineError> {
        Self::act(&drawing.prompt, "finish")?;
        Ok(vec![NewImage { seed: drawing.seed, png: Some(drawing.prompt.into_bytes()) }])
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn memory(&self) -> u64 {
        self.size
    }

    /// As if each further picture took as much again.
    fn memory_for(&self, input: &GenerationInput) -> u64 {
        self.size * u64::from(input.num_outputs)
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
        let engine =
            || Scripted { log: Rc::clone(&self.log), capacity: self.capacity, size: self.placement.needs };
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
        let engine = || Scripted { log: Rc::default(), capacity: 1, size: 10 };
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
