//! Takes jobs from the queue, reads what they ask for, and begins them in the engine.

use serde_json::Value;

use super::saving::Saves;
use super::{ActiveJob, Generation, LONGEST_PAUSE, Worker};
use crate::domain::{GenerationInput, ImageSource, InputRules, Progress};
use crate::engine::{Engine, Model};
use crate::queue::{ClaimedJob, WorkerState};

impl<M: Model> Worker<M> {
    pub(super) fn admit(&mut self) {
        if !self.may_take_jobs() || !self.has_engine() {
            return;
        }
        let gpu = self.engine.gpu_label();
        while self.has_place() {
            match self.queue.claim(&self.endpoint, &gpu) {
                Ok(Some(job)) => {
                    self.entry.set(WorkerState::Running);
                    self.take_up(job);
                }
                Ok(None) => return,
                Err(error) => {
                    if !self.queue.is_closed() {
                        tracing::warn!(%error, "no job could be claimed; trying again");
                    }
                    if self.jobs.active.is_empty() {
                        (self.pause)(LONGEST_PAUSE);
                    }
                    return;
                }
            }
        }
    }

    /// Whether it may take another job. A job that waits for its input pictures or for its LoRAs takes no place in the
    /// engine, so that the next job need not wait for a slow host or a merge. It begins when it can, beside the jobs
    /// that run.
    pub(super) fn has_place(&self) -> bool {
        let has_place = |engine: &M::Engine| self.jobs.active.len() < engine.capacity();
        !self.stop.is_stopping()
            && self.errands.has_place()
            && self.waiting.has_place()
            && self.engine.engine().is_some_and(has_place)
    }

    /// Reads a job's input and begins it if it can. First sends for the pictures that it names by URL.
    fn take_up(&mut self, job: ClaimedJob) {
        tracing::info!(job = %job.id(), attempt = job.attempt(), "started");
        let mut input = match parse(job.input(), &self.rules) {
            Ok(input) => input,
            Err(error) => return self.write(job.fail(error)),
        };
        input.variation = input.variation.with_subseed_of(job.id());
        if input.pictures().iter().any(|(_, picture)| matches!(picture, ImageSource::Url(_))) {
            self.errands.fetch(job, input);
        } else {
            self.waiting.push(job, input);
            self.begin_waiting();
        }
    }

    /// Notes that a job has begun, or goes on where an earlier attempt had saved it.
    pub(super) fn take_in(&mut self, job: ClaimedJob, input: GenerationInput, generation: Generation<M>) {
        self.entry.set(WorkerState::Running);
        let stepping_since = self.queue.now();
        let progress = self.engine.engine().map(|engine| engine.progress(&generation));
        if let Some((step, steps)) = progress {
            job.publish(Progress { step, steps, eta: None }, None);
        }
        // Its pictures have been read.
        let input = input.without_pictures();
        let (saves, resumed_at) = (Saves::new(stepping_since), progress.map_or(0, |(step, _)| step));
        self.jobs.active.push(ActiveJob { job, input, generation, stepping_since, resumed_at, saves });
    }
}

fn parse(input: &str, rules: &InputRules) -> Result<GenerationInput, String> {
    let value: Value = serde_json::from_str(input).map_err(|_| "input is not JSON.".to_owned())?;
    GenerationInput::parse(&value, rules).map_err(|violations| violations.to_string())
}
