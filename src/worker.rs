//! Claim → begin → step… → finish → complete, for a batch of jobs at a time.
//!
//! Knows the queue and, through [`Engine`], something that draws; nothing of models or HTTP. Between two
//! steps it looks at cancel, timeout, expiry and shutdown; what a job waits for outside is an [`errand`].
//! Whatever the engine does, even panic, ends in one job's end and a worker that goes on.

mod admission;
mod engine;
mod errand;
mod pipeline;
mod stepping;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

pub use engine::Engine;
use errand::{Errand, Errands};

use crate::domain::{EndpointId, GenerationInput, InputRules, StoredImage, Timestamp};
use crate::fetch::Fetcher;
use crate::queue::{ClaimedJob, Ended, JobQueue, QueueError, Stop, StopReason, WorkerEntry, WorkerState};

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
    /// Jobs whose pictures to start from are on their way here.
    fetching: Vec<Errand<GenerationInput>>,
    /// Jobs whose pictures are on their way to a bucket.
    storing: Vec<Errand<Vec<StoredImage>>>,
    pause: Box<dyn FnMut(Duration)>,
}

struct Active<G> {
    job: ClaimedJob,
    generation: G,
    stepping_since: Timestamp,
}

/// What was heard of an errand.
enum Heard<T> {
    Done(ClaimedJob, T),
    StillAway(Errand<T>),
    /// Its job came to an end.
    Ended,
}

/// At most this long without a look at the queue, should a wake-up be missed after all.
const IDLE: Duration = Duration::from_mins(1);
/// At most this long without a look at who is away, for whether it is cancelled or overdue.
const LOOK: Duration = Duration::from_millis(100);
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
        let (engine, active, fetching, storing) = (Some(engine), Vec::new(), Vec::new(), Vec::new());
        Ok(Self {
            queue,
            assignment,
            factory,
            stop,
            entry,
            engine,
            active,
            errands,
            fetching,
            storing,
            pause,
        })
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
        if self.stop.is_stopping() {
            // What has not begun need not be waited for.
            self.release_fetching();
        }
        self.receive();
        if !self.stop.is_stopping() {
            self.admit();
        } else if self.active.is_empty() && self.storing.is_empty() {
            return Turn::Stopped;
        }
        if self.engine.is_none() {
            // It fell over one job, or could not be built: the others may begin again.
            self.release_active();
        }
        if self.active.is_empty() {
            if !self.fetching.is_empty() || !self.storing.is_empty() {
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

    /// Goes on with the jobs whose errands are over, and ends those that may not go on.
    fn receive(&mut self) {
        for errand in std::mem::take(&mut self.fetching) {
            match self.hear(errand) {
                Heard::Done(job, input) => self.begin(job, &input),
                Heard::StillAway(errand) => self.fetching.push(errand),
                Heard::Ended => {}
            }
        }
        for errand in std::mem::take(&mut self.storing) {
            match self.hear(errand) {
                Heard::Done(job, images) => self.write(job.complete_stored(images)),
                Heard::StillAway(errand) => self.storing.push(errand),
                Heard::Ended => {}
            }
        }
    }

    fn hear<T>(&mut self, errand: Errand<T>) -> Heard<T> {
        let job = &errand.job;
        if let Some(reason) = job.stop_requested() {
            tracing::info!(job = %job.id(), attempt = job.attempt(), ?reason, "stopped on an errand");
            errand.job.abandon();
            return Heard::Ended;
        }
        match errand.outcome() {
            Some(Ok(done)) => return Heard::Done(errand.job, done),
            Some(Err(error)) => self.write(errand.job.fail(error)),
            None if job.is_overdue() => self.write(errand.job.time_out()),
            None => return Heard::StillAway(errand),
        }
        Heard::Ended
    }

    fn release_all(&mut self) {
        self.release_active();
        self.release_fetching();
        for errand in std::mem::take(&mut self.storing) {
            self.write(errand.job.release());
        }
    }

    fn release_fetching(&mut self) {
        for errand in std::mem::take(&mut self.fetching) {
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
