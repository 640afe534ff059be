//! The jobs that have been taken and cannot begin yet: they wait for memory, or until what they need has been made.
//!
//! They begin in the order in which they came, with two exceptions: jobs that need nothing to be made do not wait for
//! those that do, and nobody overtakes a job that waits for memory. One thing is made at a time, on a thread of its own,
//! while the engine draws. Its memory is reserved before, and counts until that thread has ended.

use std::mem;

use super::engine_slot::PANICKED;
use super::errands::Call;
use super::{JobsInHand, MadeBy, PreparedBy, Worker};
use crate::domain::GenerationInput;
use crate::engine::{Engine, EngineError, Model, Preparation, Stage};
use crate::queue::ClaimedJob;
use crate::traces;

/// A worker's jobs that wait to begin.
pub(super) struct Waiting<M: Model> {
    pub jobs: Vec<WaitingJob<M>>,
    making: Option<Making<M>>,
    /// The first of them that could begin otherwise waits for memory.
    is_short: bool,
}

pub(super) struct WaitingJob<M: Model> {
    job: ClaimedJob,
    input: GenerationInput,
    /// None if the engine has not said yet what the job needs.
    preparation: Option<Preparation<PreparedBy<M>, MadeBy<M>>>,
}

impl<M: Model> WaitingJob<M> {
    /// The same without what is ready for it, which may be dropped then. Of what is still to be made, a part may be ready.
    fn without_prepared(self) -> Self {
        Self { preparation: None, ..self }
    }
}

/// Something that is being made.
struct Making<M: Model> {
    /// Whose it is; none if that job has ended.
    owner: Option<(ClaimedJob, GenerationInput)>,
    call: Call<Result<MadeBy<M>, EngineError>>,
    keys: Vec<u64>,
    /// Of everything that the job is prepared with.
    bytes: u64,
}

/// Why a job does not begin yet.
enum WaitsFor {
    Memory,
    /// What is being made for another job.
    Making,
}

/// The most jobs that wait. They have been taken from other workers.
const MOST_WAITING: usize = 4;

impl<M: Model> Default for Waiting<M> {
    fn default() -> Self {
        Self { jobs: Vec::new(), making: None, is_short: false }
    }
}

impl<M: Model> Waiting<M> {
    pub fn push(&mut self, job: ClaimedJob, input: GenerationInput) {
        self.jobs.push(WaitingJob { job, input, preparation: None });
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.making.is_none()
    }

    pub fn is_making(&self) -> bool {
        self.making.is_some()
    }

    /// Whether the worker may take another job.
    pub fn has_place(&self) -> bool {
        !self.is_short && self.jobs.len() + usize::from(self.is_making()) < MOST_WAITING
    }

    /// Whether a job waits for memory.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Takes the jobs back. What is being made is given up.
    pub fn give_up(&mut self) -> Vec<ClaimedJob> {
        let owner = self.making.as_mut().and_then(Making::give_up);
        let waiting = mem::take(&mut self.jobs).into_iter().map(|waiting| waiting.job);
        owner.into_iter().chain(waiting).collect()
    }
}

impl<M: Model> Making<M> {
    /// Nobody wants it any more. The thread that makes it ends soon.
    fn give_up(&mut self) -> Option<ClaimedJob> {
        self.call.give_up();
        self.owner.take().map(|(job, _)| job)
    }
}

/// The requests for which memory is reserved: those in the engine, and the one that something is made for.
pub(super) fn reserved_for<'a, M: Model, G>(
    jobs: &'a JobsInHand<G>,
    waiting: &'a Waiting<M>,
) -> Vec<&'a GenerationInput> {
    let making = waiting.making.as_ref().and_then(|making| making.owner.as_ref());
    jobs.active.iter().map(|active| &active.input).chain(making.map(|(_, input)| input)).collect()
}

impl<M: Model> Worker<M> {
    /// Begins what can begin, and ends the jobs that may not wait any longer.
    pub(super) fn begin_waiting(&mut self) {
        let was_short = mem::take(&mut self.waiting.is_short);
        for waiting in mem::take(&mut self.waiting.jobs) {
            let Some(waiting) = self.still_wanted(waiting) else { continue };
            if self.waiting.is_short {
                // It does not keep from the first what it cannot use yet.
                self.waiting.jobs.push(waiting.without_prepared());
            } else if !self.engine.is_loaded() {
                // It panicked over another job.
                self.write(waiting.job.release());
            } else if let Some((waits_for, waiting)) = self.try_to_begin(waiting) {
                self.waiting.is_short = matches!(waits_for, WaitsFor::Memory);
                self.waiting.jobs.push(waiting);
            }
        }
        if was_short && !self.waiting.is_short && self.engine.is_loaded() {
            self.engine.withdraw();
        }
    }

    /// Looks whether something has been made. Its job begins as soon as it can.
    pub(super) fn collect_made(&mut self) {
        let Some(mut making) = self.waiting.making.take() else { return };
        making.owner = making.owner.take().and_then(|(job, input)| {
            let waiting = self.still_wanted(WaitingJob { job, input, preparation: None })?;
            Some((waiting.job, waiting.input))
        });
        let is_wanted = making.owner.is_some() && self.engine.is_loaded();
        if !is_wanted && let Some(job) = making.give_up() {
            self.write(job.release());
        }
        let Some(outcome) = making.call.outcome() else {
            self.waiting.making = Some(making);
            return;
        };
        self.engine.set_making(0);
        let Some((job, input)) = making.owner else { return };
        let kept = match outcome {
            Ok(Ok(made)) => self.engine.call(|engine| Ok(engine.keep(made))),
            Ok(Err(error)) => self.engine.call(|_| Err(error)),
            Err(_) => Err(EngineError::Other(PANICKED.to_owned())),
        };
        match kept {
            Ok(prepared) => {
                for waiting in &mut self.waiting.jobs {
                    // There is no need to make it once more: all of it, or one of several ControlNets.
                    let has_it = |keys: &[u64]| keys.iter().any(|key| making.keys.contains(key));
                    waiting.preparation.take_if(|preparation| preparation.keys().is_some_and(has_it));
                }
                let preparation = Some(Preparation::ready(prepared, making.bytes));
                self.waiting.jobs.insert(0, WaitingJob { job, input, preparation });
            }
            Err(error) => self.write(job.fail(error.to_string())),
        }
    }

    /// The job itself, unless it was cancelled or is overdue.
    fn still_wanted(&mut self, waiting: WaitingJob<M>) -> Option<WaitingJob<M>> {
        let job = &waiting.job;
        if let Some(reason) = job.stop_requested() {
            tracing::info!(job = %job.id(), attempt = job.attempt(), ?reason, "stopped before it began");
            waiting.job.abandon();
            return None;
        }
        if job.is_overdue() {
            self.write(waiting.job.time_out());
            return None;
        }
        Some(waiting)
    }

    /// Begins a job, or has made what it needs. Otherwise it comes back.
    fn try_to_begin(&mut self, waiting: WaitingJob<M>) -> Option<(WaitsFor, WaitingJob<M>)> {
        let WaitingJob { job, input, preparation } = waiting;
        let prepared = match preparation {
            Some(preparation) => Ok(preparation),
            None => self.engine.call(|engine| engine.prepare(&input)),
        };
        let preparation = match prepared {
            Ok(preparation) => preparation,
            Err(error) => {
                self.write(job.fail(error.to_string()));
                return None;
            }
        };
        if let Some(refusal) = self.engine.refusal(&input, preparation.bytes) {
            self.write(job.fail(refusal));
            return None;
        }
        let to_make = preparation.bytes_to_make();
        if preparation.keys().is_some() && self.waiting.is_making() {
            let preparation = Some(preparation);
            return Some((WaitsFor::Making, WaitingJob { job, input, preparation }));
        }
        let others = reserved_for(&self.jobs, &self.waiting);
        if !self.engine.reserve_for(&others, &input, to_make) {
            // Sessions may keep more than what was estimated for this job alone.
            let refusal = self.engine.refusal_alone(&input, to_make).filter(|_| others.is_empty());
            if let Some(refusal) = refusal {
                self.write(job.fail(refusal));
                return None;
            }
            let preparation = Some(preparation);
            return Some((WaitsFor::Memory, WaitingJob { job, input, preparation }));
        }
        match preparation.stage {
            Stage::Ready(prepared) => self.begin(job, input, prepared),
            Stage::ToMake { keys, make, .. } => {
                let call = self.errands.call(job.id(), move |given_up| make(given_up));
                self.engine.set_making(to_make);
                self.waiting.making =
                    Some(Making { owner: Some((job, input)), call, keys, bytes: preparation.bytes });
            }
        }
        None
    }

    /// Begins a job in the engine.
    fn begin(&mut self, job: ClaimedJob, input: GenerationInput, prepared: PreparedBy<M>) {
        let span = tracing::info_span!(target: traces::TARGET, parent: job.span(), "begin");
        let begun = self.engine.call(|engine| engine.begin(prepared, &input, job.seed()));
        let begun = begun.and_then(|generation| self.resumed(&job, generation));
        drop(span);
        match begun {
            Ok(generation) => self.take_in(job, input, generation),
            Err(error) => self.write(job.fail(error.to_string())),
        }
    }
}
