//! Claim → begin → step… → finish → complete, for a batch of jobs at a time.
//!
//! A worker takes one endpoint's jobs from the queue and draws them with an [`Engine`]. It knows nothing of models or
//! HTTP. Between two steps it looks at cancel, timeout, expiry and shutdown. Input pictures, uploads and merged LoRAs are
//! [`errands`] on threads of their own. A job begins when its memory is reserved ([`waiting`]). The engine is loaded
//! when there is work ([`loading`]) and unloaded when another needs its memory ([`crate::engine`]). Whatever the engine
//! does, even panic, ends one job, and the worker goes on.

mod admission;
mod collecting;
mod engine_slot;
mod errands;
mod loading;
mod memory;
mod saving;
mod stepping;
#[cfg(test)]
mod tests;
mod waiting;

use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use crate::domain::{EndpointId, GenerationInput, InputRules, Timestamp};
use crate::engine::{Engine, MemorySlot, Model};
use crate::fetch::Fetcher;
use crate::metrics::Metrics;
use crate::queue::{ClaimedJob, Ended, JobQueue, QueueError, Stop, StopReason, WorkerEntry, WorkerState};
use engine_slot::EngineSlot;
use errands::Errands;
use saving::Saves;
use waiting::{Waiting, reserved_for};

/// What a worker is to do, and how it keeps its engine.
pub struct Assignment {
    /// Whose jobs it takes.
    pub endpoint: EndpointId,
    /// What that endpoint's model can be asked for.
    pub rules: InputRules,
    /// How it reaches the hosts that clients name.
    pub fetcher: Fetcher,
    pub metrics: Metrics,
    pub first_load: FirstLoad,
    /// Its share of the device's memory.
    pub memory: MemorySlot,
    /// How long its engine stays without a job; none: until another engine needs its memory.
    pub unload_after: Option<Duration>,
    /// How often it saves where a job is; none: never.
    pub save_every: Option<Duration>,
}

/// When a worker's engine is first loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstLoad {
    /// At once. If that fails, there is no worker.
    Required,
    /// At once, if there is enough free memory.
    IfItFits,
    /// For the first job.
    OnDemand,
}

/// What a worker found to do in one [`Worker::tick`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TickOutcome {
    /// It stepped its jobs.
    Worked,
    /// It can only wait: for errands, or for memory for its engine or its jobs.
    Waiting,
    /// It has nothing to do.
    Idle,
    /// It was asked to stop, and has no job in hand any more.
    Stopped,
}

pub struct Worker<M: Model> {
    queue: JobQueue,
    metrics: Metrics,
    endpoint: EndpointId,
    rules: InputRules,
    stop: Stop,
    /// How this worker counts in `/health`.
    entry: WorkerEntry,
    engine: EngineSlot<M>,
    jobs: JobsInHand<Generation<M>>,
    waiting: Waiting<M>,
    errands: Errands,
    save_every: Option<Duration>,
    pause: Box<dyn FnMut(Duration)>,
}

type Generation<M> = <<M as Model>::Engine as Engine>::Generation;
type PreparedBy<M> = <<M as Model>::Engine as Engine>::Prepared;
type MadeBy<M> = <<M as Model>::Engine as Engine>::Made;

/// The jobs that the engine is drawing.
struct JobsInHand<G> {
    active: Vec<ActiveJob<G>>,
    /// They are stepped one by one, because memory ran out when they were stepped together.
    one_by_one: bool,
}

struct ActiveJob<G> {
    job: ClaimedJob,
    /// Without its pictures.
    input: GenerationInput,
    generation: G,
    stepping_since: Timestamp,
    /// The steps that an earlier attempt had done.
    resumed_at: u32,
    saves: Saves,
}

/// How long a worker waits for work before it looks at the queue anyway, in case a wake-up was missed.
const IDLE: Duration = Duration::from_mins(1);
/// How long it waits for errands or memory before it looks again whether a job was cancelled or is overdue.
const LOOK: Duration = Duration::from_millis(100);
/// The pauses between attempts at a write that the disk refused.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Starts a worker on a thread of its own. It calls `ready` once it takes jobs, or with the reason, a sentence, why
/// the engine that it requires cannot be loaded; then the thread ends.
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
    /// Loads the engine if `assignment` says so. Fails only if the engine is required and cannot be loaded.
    pub fn new(queue: JobQueue, assignment: Assignment, model: M, stop: Stop) -> Result<Self, String> {
        let Assignment { endpoint, rules, fetcher, metrics, first_load, memory, unload_after, save_every } =
            assignment;
        let patience = stop.clone();
        let mut worker = Self {
            entry: queue.enter_worker(&endpoint),
            engine: EngineSlot::new(model, memory, unload_after, queue.clock().clone()),
            jobs: JobsInHand { active: Vec::new(), one_by_one: false },
            waiting: Waiting::default(),
            errands: Errands::new(fetcher, queue.clone()),
            save_every,
            pause: Box::new(move |duration| patience.pause(duration)),
            queue,
            metrics,
            endpoint,
            rules,
            stop,
        };
        worker.load_first(first_load)?;
        worker.entry.set(WorkerState::Idle);
        Ok(worker)
    }

    /// Works until it is asked to stop.
    pub fn run(mut self) {
        loop {
            match self.tick() {
                TickOutcome::Worked => {}
                // The end of an errand wakes the thread from either wait.
                TickOutcome::Waiting if self.has_place() => self.queue.wait_for_work(&self.endpoint, LOOK),
                TickOutcome::Waiting => thread::park_timeout(LOOK),
                TickOutcome::Idle => self.queue.wait_for_work(&self.endpoint, self.patience()),
                TickOutcome::Stopped => return,
            }
        }
    }

    /// One turn of the worker:
    ///
    /// 1. If it is to stop, give back what need not be waited for; after the grace, everything.
    /// 2. Collect the errands that are over: line up jobs whose input pictures or merged LoRAs came, complete those that
    ///    are uploaded.
    /// 3. Begin the jobs that wait, as far as memory allows. Give back memory that is free or that others need.
    /// 4. Take jobs up to the engine's capacity, unless it is to stop. Loads or unloads the engine first if need be.
    /// 5. If the engine has panicked over one job, give back the others.
    /// 6. Step every job once.
    /// 7. Publish how far each job is, and end those that are done, cancelled, expired or overdue. Save where the others are,
    ///    from time to time and when it is to stop.
    pub fn tick(&mut self) -> TickOutcome {
        self.entry.note_progress();
        if self.stop.grace_is_over() {
            self.release_all();
        }
        if self.stop.is_stopping() {
            self.release_unbegun();
        }
        self.collect_errands();
        self.collect_made();
        // Before this, nothing is given back: a job whose LoRAs were just merged begins in the memory reserved for it.
        self.begin_waiting();
        self.note_use();
        if !self.stop.is_stopping() {
            self.admit();
        } else if self.jobs.active.is_empty() && !self.errands.is_storing() && !self.waiting.is_making() {
            return TickOutcome::Stopped;
        }
        if !self.engine.is_loaded() {
            self.release_active();
        }
        self.note_use();
        if self.jobs.active.is_empty() {
            return self.rest();
        }
        self.step();
        self.settle();
        self.save_due();
        self.note_use();
        TickOutcome::Worked
    }

    /// The steps done, and all steps, of a job that the engine draws.
    #[cfg(test)]
    pub(crate) fn progress_of(&self, id: &crate::domain::JobId) -> Option<(u32, u32)> {
        let active = self.jobs.active.iter().find(|active| active.job.id() == id)?;
        self.engine.engine().map(|engine| engine.progress(&active.generation))
    }

    /// The outcome of a tick without jobs to step.
    fn rest(&mut self) -> TickOutcome {
        self.jobs.one_by_one = false;
        if !self.errands.is_empty() || !self.waiting.is_empty() || self.engine.waits_for_memory {
            if self.waiting.is_short() {
                self.entry.set(WorkerState::Throttled);
            }
            return TickOutcome::Waiting;
        }
        self.entry.set(WorkerState::Idle);
        TickOutcome::Idle
    }

    /// Whether it has jobs that need the engine, now or once their input pictures or LoRAs are here. Jobs that wait for
    /// memory do not count: if others need this engine's memory first, they are put back into the queue.
    fn has_jobs_for_engine(&self) -> bool {
        !self.jobs.active.is_empty() || self.errands.is_fetching() || self.waiting.is_making()
    }

    /// Notes whether the engine is used, and how much memory it holds.
    fn note_use(&mut self) {
        self.engine.set_busy(self.has_jobs_for_engine());
        self.engine.settle(&reserved_for(&self.jobs, &self.waiting));
    }

    fn release_all(&mut self) {
        self.release_active();
        self.release_unbegun();
        for job in self.errands.give_up_storing() {
            self.write(job.release());
        }
    }

    fn release_active(&mut self) {
        for mut active in std::mem::take(&mut self.jobs.active) {
            self.save(&mut active);
            tracing::info!(job = %active.job.id(), attempt = active.job.attempt(), "put back into the queue");
            let ended = if active.saves.panicked { active.job.crash() } else { active.job.release() };
            self.write(ended);
        }
    }

    fn release_unbegun(&mut self) {
        for job in self.errands.give_up_fetching() {
            self.write(job.release());
        }
        self.release_waiting();
    }

    fn release_waiting(&mut self) {
        for job in self.waiting.give_up() {
            self.write(job.release());
        }
    }

    /// Writes a job's end to the disk, and tries again while the disk is full, so that no picture is lost.
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
            self.entry.note_progress();
            (self.pause)(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            ended = unwritten.retry();
        }
    }
}
