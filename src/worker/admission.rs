//! Taking jobs up: whether there is room, what they ask for, and their beginning in the engine.

use bytesize::ByteSize;
use serde_json::Value;

use super::{Active, Engine, LONGEST_PAUSE, Model, Worker};
use crate::domain::{GenerationInput, ImageSource, InputRules, Progress};
use crate::queue::{ClaimedJob, WorkerState};

/// Jobs that wait for pictures to come, and those whose pictures are on their way to a bucket, each; they hold
/// them in memory.
const MAX_AWAY: usize = 4;

impl<M: Model> Worker<M> {
    pub(super) fn admit(&mut self) {
        if !self.may_stay() || !self.has_engine() {
            return;
        }
        let gpu = self.placement.as_ref().map(|placement| placement.device.label()).unwrap_or_default();
        while self.has_room() {
            match self.queue.claim(&self.assignment.endpoint, &gpu) {
                Ok(Some(job)) => {
                    self.entry.set(WorkerState::Running);
                    self.take_up(job);
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

    /// Whether it may take another job. One that waits for its pictures takes no place in the engine, so that the
    /// next need not wait for a slow host; it begins when they come, beside whatever runs.
    pub(super) fn has_room(&self) -> bool {
        let engine_has = |engine: &M::Engine| self.active.len() < engine.capacity();
        !self.stop.is_stopping()
            && self.fetching.len() < MAX_AWAY
            && self.storing.len() < MAX_AWAY
            && self.engine.as_ref().is_some_and(engine_has)
    }

    /// Reads a job's input and begins it, or sends for the pictures first that it names by their addresses.
    fn take_up(&mut self, job: ClaimedJob) {
        tracing::info!(job = %job.id(), attempt = job.attempt(), "started");
        let input = match parse(job.input(), &self.assignment.rules) {
            Ok(input) => input,
            Err(error) => return self.write(job.fail(error)),
        };
        if let Err(error) = self.check_memory(&input) {
            return self.write(job.fail(error));
        }
        let is_elsewhere = |picture: &Option<ImageSource>| matches!(picture, Some(ImageSource::Url(_)));
        if is_elsewhere(&input.init_image) || is_elsewhere(&input.mask) {
            self.fetching.push(self.errands.fetch(job, input));
        } else {
            self.begin(job, &input);
        }
    }

    pub(super) fn begin(&mut self, job: ClaimedJob, input: &GenerationInput) {
        if self.engine.is_none() {
            // It fell over another job while this one's pictures were fetched.
            return self.write(job.release());
        }
        match self.guarded(|engine| engine.begin(input, job.seed())) {
            Ok(generation) => {
                let stepping_since = self.queue.now();
                if let Some((step, steps)) = self.engine.as_ref().map(|engine| engine.progress(&generation)) {
                    job.publish(Progress { step, steps, eta: None }, None);
                }
                self.active.push(Active { job, generation, stepping_since });
            }
            Err(error) => self.write(job.fail(error.to_string())),
        }
    }

    /// Refuses what would not fit into the device's memory: on a CPU the system might end the whole process.
    fn check_memory(&self, input: &GenerationInput) -> Result<(), String> {
        let budget = self.placement.as_ref().and_then(|placement| placement.budget);
        let (Some(engine), Some(budget)) = (&self.engine, budget) else { return Ok(()) };
        let needs = engine.memory_for(input);
        if needs <= budget {
            return Ok(());
        }
        Err(format!(
            "This would take about {} of memory, and {} is what models may take: ask for a smaller picture or fewer \
             outputs, or let the server draw with a larger --memory-budget or on another --device.",
            ByteSize(needs),
            ByteSize(budget)
        ))
    }
}

fn parse(input: &str, rules: &InputRules) -> Result<GenerationInput, String> {
    let value: Value = serde_json::from_str(input).map_err(|_| "input is not JSON.".to_owned())?;
    GenerationInput::parse(&value, rules).map_err(|violations| violations.to_string())
}
