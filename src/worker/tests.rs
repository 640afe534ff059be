//! The worker with an engine that follows a script, a turn at a time.

mod buckets;
mod failures;
mod jobs;
mod pictures;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::domain::{ImageSource, JobId, JobStatus, NewImage, NewJob, Policy, Progress};
use crate::fetch::tests::Server;
use crate::queue::WorkerCounts;
use crate::queue::tests::{TestQueue, endpoint, new_job};

const LONG: Duration = Duration::from_hours(1);

/// What the engines did, and how many were built.
#[derive(Default)]
struct Log {
    steps: Cell<u32>,
    built: Cell<u32>,
    pauses: RefCell<Vec<Duration>>,
    /// What the last job started from.
    pictures: RefCell<[Option<ImageSource>; 2]>,
}

/// Draws what the prompt says: "panic in step", "error in begin", anything else as a picture.
struct Scripted {
    log: Rc<Log>,
    capacity: usize,
}

struct Drawing {
    prompt: String,
    seed: u64,
    done: u32,
    steps: u32,
}

impl Scripted {
    fn act(prompt: &str, stage: &str) -> Result<(), String> {
        if prompt == format!("panic in {stage}") {
            std::panic::resume_unwind(Box::new("as the script says"));
        }
        if prompt == format!("error in {stage}") { Err("out of memory".to_owned()) } else { Ok(()) }
    }
}

impl Engine for Scripted {
    type Generation = Drawing;
    type Error = String;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Drawing, String> {
        Self::act(&input.prompt, "begin")?;
        *self.log.pictures.borrow_mut() = [input.init_image.clone(), input.mask.clone()];
        Ok(Drawing { prompt: input.prompt.clone(), seed, done: 0, steps: input.num_inference_steps })
    }

    fn step(&mut self, batch: &mut [&mut Drawing]) -> Result<(), String> {
        self.log.steps.set(self.log.steps.get() + 1);
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

    fn finish(&mut self, drawing: Drawing) -> Result<Vec<NewImage>, String> {
        Self::act(&drawing.prompt, "finish")?;
        Ok(vec![NewImage { seed: drawing.seed, png: Some(drawing.prompt.into_bytes()) }])
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn device(&self) -> String {
        "24".to_owned()
    }
}

struct Bench {
    test: TestQueue,
    stop: Stop,
    log: Rc<Log>,
}

impl Bench {
    fn new() -> Self {
        Self { test: TestQueue::new(), stop: Stop::default(), log: Rc::default() }
    }

    fn worker(&self, capacity: usize) -> Worker<Scripted, impl Fn() -> Result<Scripted, String> + use<>> {
        let log = Rc::clone(&self.log);
        let factory = move || {
            log.built.set(log.built.get() + 1);
            Ok(Scripted { log: Rc::clone(&log), capacity })
        };
        let mut worker =
            Worker::new(self.test.queue.clone(), assignment(), factory, self.stop.clone()).unwrap();
        let log = Rc::clone(&self.log);
        worker.pause = Box::new(move |pause| log.pauses.borrow_mut().push(pause));
        worker
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

fn assignment() -> Assignment {
    let fetcher = Fetcher::new("127.0.0.0/8".parse().unwrap()).unwrap();
    let rules = InputRules { takes_images: true, ..InputRules::default() };
    Assignment { endpoint: endpoint(), rules, fetcher }
}

fn input(prompt: &str, steps: u32) -> String {
    serde_json::json!({"prompt": prompt, "num_inference_steps": steps}).to_string()
}

fn work_off<E: Engine, F: Fn() -> Result<E, String>>(worker: &mut Worker<E, F>) {
    while worker.run_once() == Turn::Worked {}
}

/// Works until the job's errand is over too.
fn work_off_with_errands<E: Engine, F: Fn() -> Result<E, String>>(worker: &mut Worker<E, F>) {
    worker.errands.pauses = [Duration::ZERO; 2];
    loop {
        match worker.run_once() {
            Turn::Worked => {}
            Turn::Waiting => thread::park_timeout(LOOK),
            Turn::Idle | Turn::Stopped => return,
        }
    }
}
