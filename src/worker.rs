//! Claim → begin → step… → finish → complete, for a batch of jobs at a time.
//!
//! Knows the queue and, through [`Engine`], something that draws; nothing of models or HTTP. Between two
//! steps it looks at cancel, timeout, expiry and shutdown; what a job waits for outside is an [`errand`]. Whatever the engine does, even panic, ends in one
//! job's end and a worker that goes on.

mod errand;
mod pipeline;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use serde_json::Value;

use errand::{Errand, Errands};

use crate::domain::{EndpointId, GenerationInput, ImageSource, InputRules, NewImage, Progress, Timestamp};
use crate::fetch::Fetcher;
use crate::queue::{ClaimedJob, Ended, JobQueue, QueueError, Stop, StopReason, WorkerEntry, WorkerState};

/// Something that draws, a step at a time.
pub trait Engine {
    /// One request in flight.
    type Generation;
    type Error: Display;

    fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Self::Generation, Self::Error>;
    /// One denoising step of each.
    fn step(&mut self, batch: &mut [&mut Self::Generation]) -> Result<(), Self::Error>;
    /// Steps done, and steps in all.
    fn progress(&self, generation: &Self::Generation) -> (u32, u32);
    /// How the first picture looks so far, as a small PNG file; none where the model has no quick way to tell.
    fn preview(&mut self, generation: &Self::Generation) -> Option<Vec<u8>>;
    fn finish(&mut self, generation: Self::Generation) -> Result<Vec<NewImage>, Self::Error>;
    /// How many jobs it steps at once: 1 on a CPU.
    fn capacity(&self) -> usize;
    /// What the status body calls `gpu`.
    fn device(&self) -> String;
}

/// Whose jobs a worker takes.
#[derive(Debug, Clone)]
pub struct Assignment {
    pub endpoint: EndpointId,
    /// What that endpoint's model can be asked for.
    pub rules: InputRules,
    /// How it reaches what clients name.
    pub fetcher: Fetcher,
}

/// What a turn of the worker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Worked,
    /// There is nothing to do but wait for errands.
    Waiting,
    /// There is nothing to do.
    Idle,
    /// It was asked to stop, and holds no job any more.
    Stopped,
}

pub struct Worker<E: Engine, F> {
    queue: JobQueue,
    assignment: Assignment,
    factory: F,
    stop: Stop,
    entry: WorkerEntry,
    /// None after a panic, until it is built anew.
    engine: Option<E>,
    active: Vec<Active<E::Generation>>,
    errands: Errands,
    away: Vec<Errand>,
    pause: Box<dyn FnMut(Duration)>,
}

struct Active<G> {
    job: ClaimedJob,
    generation: G,
    stepping_since: Timestamp,
}

/// At most this long without a look at the queue, should a wake-up be missed after all.
const IDLE: Duration = Duration::from_mins(1);
/// At most this long without a look at who is away, for whether it is cancelled or overdue.
const LOOK: Duration = Duration::from_millis(100);
/// Jobs whose pictures are on their way to a bucket, and in memory meanwhile.
const MAX_AWAY: usize = 4;
/// Between attempts at what the disk or the device refused.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PANICKED: &str = "The engine stopped unexpectedly while it worked on this job.";

/// Starts the thread of a worker on one endpoint's jobs, which builds its engine itself (an engine need not be `Send`) and then tells
/// `ready`; if it cannot be built, the sentence why, and the thread ends.
pub fn spawn<E: Engine, F>(
    queue: JobQueue,
    assignment: Assignment,
    factory: F,
    stop: Stop,
    ready: impl FnOnce(Result<(), String>) + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Fn() -> Result<E, String> + Send + 'static,
{
    thread::Builder::new().name("worker".to_owned()).spawn(move || {
        match Worker::new(queue, assignment, factory, stop) {
            Ok(worker) => {
                ready(Ok(()));
                worker.run();
            }
            Err(error) => ready(Err(error)),
        }
    })
}

impl<E: Engine, F: Fn() -> Result<E, String>> Worker<E, F> {
    /// Builds the engine, and fails as that fails.
    pub fn new(queue: JobQueue, assignment: Assignment, factory: F, stop: Stop) -> Result<Self, String> {
        let mut entry = queue.enter_worker(&assignment.endpoint);
        let engine = build(&factory)?;
        entry.set(WorkerState::Idle);
        let patience = stop.clone();
        let pause = Box::new(move |duration| patience.pause(duration));
        let errands =
            Errands { fetcher: assignment.fetcher.clone(), queue: queue.clone(), pauses: errand::PAUSES };
        let (engine, active, away) = (Some(engine), Vec::new(), Vec::new());
        Ok(Self { queue, assignment, factory, stop, entry, engine, active, errands, away, pause })
    }

    /// Works until it is asked to stop.
    pub fn run(mut self) {
        loop {
            match self.run_once() {
                Turn::Worked => {}
                // An errand's end wakes either.
                Turn::Waiting if self.has_room() => {
                    self.queue.wait_for_work(&self.assignment.endpoint, LOOK);
                }
                Turn::Waiting => thread::park_timeout(LOOK),
                Turn::Idle => self.queue.wait_for_work(&self.assignment.endpoint, IDLE),
                Turn::Stopped => return,
            }
        }
    }

    /// One turn: takes jobs up to the engine's capacity, steps all of them once, ends what is to end.
    pub fn run_once(&mut self) -> Turn {
        if self.stop.grace_is_over() {
            self.release_all();
        }
        self.receive();
        if self.stop.is_stopping() {
            if self.active.is_empty() && self.away.is_empty() {
                return Turn::Stopped;
            }
        } else {
            self.admit();
        }
        if self.engine.is_none() {
            // It fell over one job, or could not be built: the others may begin again.
            self.release_active();
        }
        if self.active.is_empty() {
            if !self.away.is_empty() {
                return Turn::Waiting;
            }
            if self.engine.is_some() {
                self.entry.set(WorkerState::Idle);
            }
            return Turn::Idle;
        }
        self.step();
        self.settle();
        Turn::Worked
    }

    fn admit(&mut self) {
        if !self.has_engine() {
            return;
        }
        while let Some(engine) = self.engine.as_ref().filter(|_| self.has_room()) {
            match self.queue.claim(&self.assignment.endpoint, &engine.device()) {
                Ok(Some(job)) => {
                    self.entry.set(WorkerState::Running);
                    self.begin(job);
                }
                Ok(None) => return,
                Err(error) => {
                    if !self.queue.is_closed() {
                        tracing::warn!(%error, "no job could be claimed; trying again");
                    }
                    if self.active.is_empty() {
                        (self.pause)(LONGEST_PAUSE);
                    }
                    return;
                }
            }
        }
    }

    /// Whether it may take another job.
    fn has_room(&self) -> bool {
        let engine_has = |engine: &E| self.active.len() < engine.capacity();
        !self.stop.is_stopping() && self.away.len() < MAX_AWAY && self.engine.as_ref().is_some_and(engine_has)
    }

    /// Builds the engine anew if a panic took it.
    fn has_engine(&mut self) -> bool {
        if self.engine.is_some() {
            return true;
        }
        self.entry.set(WorkerState::Initializing);
        match build(&self.factory) {
            Ok(engine) => {
                self.engine = Some(engine);
                self.entry.set(WorkerState::Idle);
                true
            }
            Err(error) => {
                tracing::error!(error, "the engine could not be built anew; trying again");
                (self.pause)(LONGEST_PAUSE);
                false
            }
        }
    }

    fn begin(&mut self, job: ClaimedJob) {
        tracing::info!(job = %job.id(), attempt = job.attempt(), "started");
        let parsed = parse(job.input(), &self.assignment.rules);
        let input = match parsed.and_then(|input| fetched(input, &self.assignment.fetcher)) {
            Ok(input) => input,
            Err(error) => return self.write(job.fail(error)),
        };
        match self.guarded(|engine| engine.begin(&input, job.seed())) {
            Ok(generation) => {
                let stepping_since = self.queue.now();
                if let Some((step, steps)) = self.engine.as_ref().map(|engine| engine.progress(&generation)) {
                    job.publish(Progress { step, steps, eta: None }, None);
                }
                self.active.push(Active { job, generation, stepping_since });
            }
            Err(error) => self.write(job.fail(error)),
        }
    }

    fn step(&mut self) {
        let mut active = std::mem::take(&mut self.active);
        let mut batch: Vec<_> = active.iter_mut().map(|active| &mut active.generation).collect();
        let start = Instant::now();
        match self.guarded(|engine| engine.step(&mut batch)) {
            Ok(()) => {
                if let Some(first) = active.first() {
                    self.queue.metrics().step(first.job.endpoint(), start.elapsed());
                }
                self.active = active;
            }
            // Whose fault it was is not known.
            Err(error) => active.into_iter().for_each(|active| self.write(active.job.fail(error.clone()))),
        }
    }

    /// Publishes how far each job is, and ends those that are done or may not go on.
    fn settle(&mut self) {
        for active in std::mem::take(&mut self.active) {
            let Some(engine) = &self.engine else {
                // As above.
                self.write(active.job.release());
                continue;
            };
            let Active { job, generation, stepping_since } = active;
            let (step, steps) = engine.progress(&generation);
            match job.stop_requested() {
                Some(StopReason::Cancelled) => {
                    tracing::info!(job = %job.id(), attempt = job.attempt(), step, "cancelled");
                    job.abandon();
                }
                Some(StopReason::Gone) => {
                    tracing::info!(job = %job.id(), attempt = job.attempt(), step, "forgotten while it ran");
                    job.abandon();
                }
                None if step >= steps => {
                    // Decoding takes a while, too.
                    job.publish(Progress { step: steps, steps, eta: Some(Duration::ZERO) }, None);
                    self.finish(job, generation, steps);
                }
                None if job.is_overdue() => self.write(job.time_out()),
                None => {
                    let elapsed = self.queue.now().since(stepping_since);
                    let eta = (step > 0).then(|| elapsed * (steps - step) / step);
                    let preview = match job.wants_preview() {
                        true => self.guarded(|engine| Ok(engine.preview(&generation))),
                        false => Ok(None),
                    };
                    match preview {
                        Ok(preview) => {
                            job.publish(Progress { step, steps, eta }, preview);
                            self.active.push(Active { job, generation, stepping_since });
                        }
                        Err(error) => self.write(job.fail(error)),
                    }
                }
            }
        }
    }

    fn finish(&mut self, job: ClaimedJob, generation: E::Generation, steps: u32) {
        match self.guarded(|engine| engine.finish(generation)) {
            Ok(images) => {
                let duration = self.queue.now().since(job.started_at());
                let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let count = u32::try_from(images.len()).unwrap_or(u32::MAX);
                for _ in 0..count {
                    self.queue.metrics().image(job.endpoint(), duration / count);
                }
                tracing::info!(job = %job.id(), attempt = job.attempt(), steps, duration_ms, "drawn");
                match job.s3_config().cloned() {
                    None => self.write(job.complete(images)),
                    Some(bucket) => self.away.push(self.errands.store(job, bucket, images)),
                }
            }
            Err(error) => self.write(job.fail(error)),
        }
    }

    /// Ends the jobs whose errands are over, and those that may not go on.
    fn receive(&mut self) {
        for errand in std::mem::take(&mut self.away) {
            let job = &errand.job;
            if let Some(reason) = job.stop_requested() {
                tracing::info!(job = %job.id(), attempt = job.attempt(), ?reason, "stopped on an errand");
                errand.job.abandon();
            } else if let Some(outcome) = errand.outcome() {
                self.write(match outcome {
                    Ok(images) => errand.job.complete_stored(images),
                    Err(error) => errand.job.fail(error),
                });
            } else if job.is_overdue() {
                self.write(errand.job.time_out());
            } else {
                self.away.push(errand);
            }
        }
    }

    fn release_all(&mut self) {
        self.release_active();
        for errand in std::mem::take(&mut self.away) {
            self.write(errand.job.release());
        }
    }

    fn release_active(&mut self) {
        for active in std::mem::take(&mut self.active) {
            tracing::info!(job = %active.job.id(), attempt = active.job.attempt(), "put back into the queue");
            self.write(active.job.release());
        }
    }

    /// Calls the engine. A panic takes it down: in what state it is nobody knows.
    fn guarded<T>(&mut self, call: impl FnOnce(&mut E) -> Result<T, E::Error>) -> Result<T, String> {
        let Some(engine) = self.engine.as_mut() else { return Err(PANICKED.to_owned()) };
        if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| call(engine))) {
            return outcome.map_err(|error| format!("The model failed: {error}"));
        }
        tracing::error!("the engine panicked and is built anew");
        self.engine = None;
        Err(PANICKED.to_owned())
    }

    /// Sees an end through to the disk: what was drawn is not lost because that is full for a while.
    fn write(&mut self, mut ended: Ended) {
        let mut pause = FIRST_PAUSE;
        while let Err(unwritten) = ended {
            let (job, error) = (unwritten.job(), unwritten.error());
            let (id, attempt) = (job.id(), job.attempt());
            let passing = matches!(error, QueueError::Unavailable(_)) && !self.queue.is_closed();
            let gone = job.stop_requested() == Some(StopReason::Gone);
            if gone || !passing || self.stop.grace_is_over() {
                tracing::error!(job = %id, attempt, %error, "the job's end could not be written");
                return unwritten.abandon();
            }
            tracing::warn!(job = %id, attempt, %error, "the job's end cannot be written yet; trying again");
            (self.pause)(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            ended = unwritten.retry();
        }
    }
}

fn build<E>(factory: &impl Fn() -> Result<E, String>) -> Result<E, String> {
    catch_unwind(AssertUnwindSafe(factory))
        .unwrap_or_else(|_| Err("The engine could not be built.".to_owned()))
}

/// `input` with its pictures' bytes in place of their addresses. They live as long as the work does: the job
/// keeps the addresses alone.
fn fetched(mut input: GenerationInput, fetcher: &Fetcher) -> Result<GenerationInput, String> {
    for (name, source) in [("init_image", &mut input.init_image), ("mask", &mut input.mask)] {
        if let Some(ImageSource::Url(url)) = source {
            let bytes = fetcher
                .fetch_image(url)
                .map_err(|reason| format!("{name} could not be fetched: {reason}."))?;
            let picture = ImageSource::from_bytes(bytes)
                .map_err(|reason| format!("{name} cannot be used. {reason}"))?;
            *source = Some(picture);
        }
    }
    Ok(input)
}

fn parse(input: &str, rules: &InputRules) -> Result<GenerationInput, String> {
    let value: Value = serde_json::from_str(input).map_err(|_| "input is not JSON.".to_owned())?;
    GenerationInput::parse(&value, rules).map_err(|violations| violations.to_string())
}
