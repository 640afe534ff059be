//! Saves where long jobs are, so that a later attempt goes on from there and not from the first step.
//!
//! A job that takes longer than `save_every` is saved that often, and all jobs are saved when the worker is asked to stop
//! and when it puts them back. The engine says what is saved, and the queue writes it while the engine goes on. A save that
//! cannot be written costs nothing. One over which the engine panics counts as a crash.

use tracing::field::Empty;

use super::{ActiveJob, Generation, Worker};
use crate::domain::Timestamp;
use crate::engine::{Engine, EngineError, Model};
use crate::queue::ClaimedJob;
use crate::traces;

/// When a job was last saved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Saves {
    /// Or when it began.
    last_at: Timestamp,
    /// Whether that was when the worker had been asked to stop.
    at_stop: bool,
    /// The engine panicked when it was to say where the job is.
    pub panicked: bool,
}

impl Saves {
    pub fn new(begun_at: Timestamp) -> Self {
        Self { last_at: begun_at, at_stop: false, panicked: false }
    }
}

impl<M: Model> Worker<M> {
    /// Saves the jobs that were not saved for a while, and all of them once after the request to stop: whoever sent it may
    /// kill the process before the grace is over.
    pub(super) fn save_due(&mut self) {
        let Some(every) = self.save_every else { return };
        let (now, is_stopping) = (self.queue.now(), self.stop.is_stopping());
        for mut active in std::mem::take(&mut self.jobs.active) {
            let is_due = now.since(active.saves.last_at) >= every || is_stopping && !active.saves.at_stop;
            // A disk that is so slow would be even slower with two writes at once.
            if is_due && !active.job.is_saving() {
                active.saves = Saves { last_at: now, at_stop: is_stopping, panicked: false };
                self.save(&mut active);
            }
            self.jobs.active.push(active);
        }
    }

    /// Saves where a job is, if jobs are saved and there is an engine that knows. Does not wait for the disk.
    pub(super) fn save(&mut self, active: &mut ActiveJob<Generation<M>>) {
        if self.save_every.is_none() || !self.engine.is_loaded() {
            return;
        }
        let span =
            tracing::info_span!(target: traces::TARGET, parent: active.job.span(), "save", bytes = Empty);
        match self.engine.call(|engine| Ok(engine.save(&active.generation))) {
            Ok(Some(state)) => {
                tracing::debug!(job = %active.job.id(), bytes = state.len(), "saved where the job is");
                span.record("bytes", traces::number(state.len()));
                active.job.save(state);
            }
            Ok(None) => {}
            // This unloads the engine, and the next tick puts the jobs back.
            Err(_) => active.saves.panicked = true,
        }
    }

    /// A job that has just begun, or as far as an earlier attempt had saved it.
    pub(super) fn resumed(
        &mut self,
        job: &ClaimedJob,
        mut generation: Generation<M>,
    ) -> Result<Generation<M>, EngineError> {
        // A first attempt has none.
        if self.save_every.is_none() || job.attempt() == 1 {
            return Ok(generation);
        }
        let saved = match job.saved() {
            Ok(Some(saved)) => saved,
            Ok(None) => return Ok(generation),
            Err(error) => {
                tracing::warn!(job = %job.id(), %error, "what was saved of the job cannot be read; it begins anew");
                return Ok(generation);
            }
        };
        let outcome = self.engine.call(|engine| {
            // An error concerns what was saved, and not the job, which has begun.
            let outcome = engine.resume(&mut generation, &saved);
            Ok((outcome, engine.progress(&generation).0))
        })?;
        match outcome {
            (Ok(true), step) => {
                self.metrics.job_resumed(&self.endpoint);
                tracing::info!(job = %job.id(), attempt = job.attempt(), step, "goes on where it was saved");
            }
            (Ok(false), _) => {
                tracing::info!(job = %job.id(), "what was saved of the job is damaged or of another model; it begins anew");
            }
            (Err(error), _) => {
                tracing::warn!(job = %job.id(), %error, "what was saved of the job cannot be used; it begins anew");
            }
        }
        Ok(generation)
    }
}
