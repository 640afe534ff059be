//! Claim → begin → step… → finish → complete, for a batch of jobs at a time.
//!
//! Knows the queue and, through [`Engine`], something that draws; nothing of models or HTTP. Between two
//! steps it looks at cancel, timeout, expiry and shutdown; what a job waits for outside is an [`errand`]. Its
//! engine is loaded when there is work, and leaves when another needs the room ([`residency`]).
//! Whatever the engine does, even panic, ends in one job's end and a worker that goes on.

mod admission;
mod engine;
mod errand;
mod loading;
mod residency;
mod returning;
mod stepping;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

pub use engine::{Engine, EngineError, Model, Placement};
use errand::{Errand, Errands};
use loading::Broken;
pub use residency::{Residency, Room, Seat};

use crate::domain::{EndpointId, GenerationInput, InputRules, StoredImage, Timestamp};
use crate::fetch::Fetcher;
use crate::queue::{ClaimedJob, Ended, JobQueue, QueueError, Stop, StopReason, WorkerEntry, WorkerState};

/// Whose jobs a worker takes, and how it keeps its engine.
pub struct Assignment {
    pub endpoint: EndpointId,
    /// What that endpoint's model can be asked for.
    pub rules: InputRules,
    /// How it reaches what clients name.
    pub fetcher: Fetcher,
    pub first_load: FirstLoad,
    pub seat: Seat,
    /// How long its engine stays without a job; without, until another needs the room.
    pub unload_after: Option<Duration>,
}

/// When a worker's engine is first loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLoad {
    /// At once; there is no worker if it cannot be.
    Required,
    /// At once if there is room.
    IfItFits,
    /// For the first job.
    OnDemand,
}

/// What a turn of the worker came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Worked,
    /// There is nothing to do but wait for errands, or for room for its engine.
    Waiting,
    /// There is nothing to do.
    Idle,
    /// It was asked to stop, and holds no job any more.
    Stopped,
}

pub struct Worker<M: Model> {
    queue: JobQueue,
    assignment: Assignment,
    model: M,
    stop: Stop,
    entry: WorkerEntry,
    /// None until there is work for it, and after a panic.
    engine: Option<M::Engine>,
    /// Unknown until it is first asked for.
    placement: Option<Placement>,
    /// Why there is no engine and will be none soon.
    broken: Option<Broken>,
    active: Vec<Active<<M::Engine as Engine>::Generation>>,
    /// Steps its jobs one by one, since memory ran out over all of them.
    one_by_one: bool,
    /// There is a job, and no room for the engine yet.
    wants_room: bool,
    /// Whether the seat knows of work in hand.
    is_busy: bool,
    idle_since: Timestamp,
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

/// At most this long without a look at the queue, should a wake-up be missed after all.
const IDLE: Duration = Duration::from_mins(1);
/// At most this long without a look at who is away, for whether it is cancelled or overdue.
const LOOK: Duration = Duration::from_millis(100);
/// Between attempts at what the disk or the device refused.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PANICKED: &str = "The engine stopped unexpectedly while it worked on this job.";

/// Starts the thread of a worker on one endpoint's jobs. It tells `ready` once it takes jobs, or, in a sentence,
/// why the engine that it should have had at once cannot be loaded; if that is required, the thread ends.
pub fn spawn<M: Model + Send + 'static>(
    queue: JobQueue,
    assignment: Assignment,
    model: M,
    stop: Stop,
    ready: impl FnOnce(Result<(), String>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("worker".to_owned()).spawn(move || {
        match Worker::new(queue, assignment, model, stop) {
            Ok(worker) => {
                ready(Ok(()));
                worker.run();
            }
            Err(error) => ready(Err(error)),
        }
    })
}

impl<M: Model> Worker<M> {
    /// Loads the engine where that is required or there is room; fails only where it is required.
    pub fn new(queue: JobQueue, assignment: Assignment, model: M, stop: Stop) -> Result<Self, String> {
        let entry = queue.enter_worker(&assignment.endpoint);
        let patience = stop.clone();
        let errands =
            Errands { fetcher: assignment.fetcher.clone(), queue: queue.clone(), pauses: errand::PAUSES };
        let mut worker = Self {
            idle_since: queue.now(),
            queue,
            assignment,
            model,
            stop,
            entry,
            engine: None,
            placement: None,
            broken: None,
            active: Vec::new(),
            one_by_one: false,
            wants_room: false,
            is_busy: false,
            errands,
            fetching: Vec::new(),
            storing: Vec::new(),
            pause: Box::new(move |duration| patience.pause(duration)),
        };
        worker.load_first()?;
        worker.entry.set(WorkerState::Idle);
        Ok(worker)
    }

    /// Works until it is asked to stop.
    pub fn run(mut self) {
        loop {
            match self.run_once() {
                Turn::Worked => {}
                // An errand's end wakes either; room is looked for again.
                Turn::Waiting if self.has_room() => {
                    self.queue.wait_for_work(&self.assignment.endpoint, LOOK);
                }
                Turn::Waiting => thread::park_timeout(LOOK),
                Turn::Idle => self.queue.wait_for_work(&self.assignment.endpoint, self.patience()),
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
            // It fell over one job: the others may begin again.
            self.release_active();
        }
        self.tell_seat();
        if self.active.is_empty() {
            self.one_by_one = false;
            if !self.fetching.is_empty() || !self.storing.is_empty() || self.wants_room {
                return Turn::Waiting;
            }
            self.entry.set(WorkerState::Idle);
            return Turn::Idle;
        }
        self.step();
        self.settle();
        self.tell_seat();
        Turn::Worked
    }

    fn release_all(&mut self) {
        self.release_active();
        self.release_fetching();
        for errand in std::mem::take(&mut self.storing) {
            self.write(errand.job.release());
        }
    }

    fn release_active(&mut self) {
        for active in std::mem::take(&mut self.active) {
            tracing::info!(job = %active.job.id(), attempt = active.job.attempt(), "put back into the queue");
            self.write(active.job.release());
        }
    }

    /// Calls the engine; an error is a sentence for the client. A panic takes the engine down: in what state it is
    /// nobody knows.
    fn guarded<T>(
        &mut self,
        call: impl FnOnce(&mut M::Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let panicked = || Err(EngineError::Other(PANICKED.to_owned()));
        let Some(engine) = self.engine.as_mut() else { return panicked() };
        if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| call(engine))) {
            return outcome.map_err(|error| self.explain(error, "The model failed"));
        }
        tracing::error!("the engine panicked and is loaded anew");
        self.unload();
        panicked()
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
