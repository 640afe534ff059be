//! Steps all jobs, and then publishes how far each is or ends it.

use std::time::{Duration, Instant};

use super::{ActiveJob, Generation, Worker};
use crate::domain::{GenerationInput, Progress};
use crate::engine::{Engine, EngineError, Model};
use crate::queue::{ClaimedJob, StopReason};
use crate::traces;

impl<M: Model> Worker<M> {
    /// One step of every job: together, or one by one if there is too little memory for all at once.
    pub(super) fn step(&mut self) {
        let mut active = std::mem::take(&mut self.jobs.active);
        if !self.jobs.one_by_one || active.len() == 1 {
            match self.step_together(&mut active) {
                Ok(()) => return self.jobs.active = active,
                Err(EngineError::OutOfMemory(_)) if active.len() > 1 => self.jobs.one_by_one = true,
                // Nobody knows which job caused it.
                Err(error) => return active.into_iter().for_each(|active| self.fail(active, &error)),
            }
        }
        for mut active in active {
            if !self.engine.is_loaded() {
                // It panicked over an earlier job.
                self.write(active.job.release());
                continue;
            }
            match self.step_together(std::slice::from_mut(&mut active)) {
                Ok(()) => self.jobs.active.push(active),
                Err(error) => self.fail(active, &error),
            }
        }
    }

    fn step_together(&mut self, active: &mut [ActiveJob<Generation<M>>]) -> Result<(), EngineError> {
        let rows_of = |input: &GenerationInput| input.rows_per_image() * input.num_outputs;
        let spans: Vec<_> = active
            .iter()
            .map(|one| {
                tracing::info_span!(
                    target: traces::TARGET,
                    parent: one.job.span(),
                    "step",
                    batch.jobs = traces::number(active.len()),
                    batch.rows = traces::number(active.iter().map(|active| rows_of(&active.input)).sum::<u32>())
                )
            })
            .collect();
        let mut batch: Vec<_> = active.iter_mut().map(|active| &mut active.generation).collect();
        let start = Instant::now();
        self.engine.call(|engine| engine.step(&mut batch))?;
        drop(spans);
        self.metrics.step(&self.endpoint, start.elapsed());
        Ok(())
    }

    fn fail(&mut self, active: ActiveJob<Generation<M>>, error: &EngineError) {
        self.write(active.job.fail(error.to_string()));
    }

    /// Publishes how far each job is, and ends those that are done or may not go on.
    pub(super) fn settle(&mut self) {
        for active in std::mem::take(&mut self.jobs.active) {
            let Some(engine) = self.engine.engine() else {
                // It panicked over an earlier job.
                self.write(active.job.release());
                continue;
            };
            let ActiveJob { job, input, mut generation, stepping_since, resumed_at, saves } = active;
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
                    // Before decoding, which takes a while.
                    job.publish(Progress { step: steps, steps, eta: Some(Duration::ZERO) }, None);
                    self.finish(job, generation, steps);
                }
                None if job.is_overdue() => self.write(job.time_out()),
                None if job.is_cut_short() => {
                    tracing::info!(job = %job.id(), attempt = job.attempt(), step, "cut short");
                    match self.engine.call(|engine| engine.cut_short(&mut generation)) {
                        Ok(()) => self.finish(job, generation, step),
                        Err(error) => self.write(job.fail(error.to_string())),
                    }
                }
                None => {
                    let elapsed = self.queue.now().since(stepping_since);
                    let done = step.saturating_sub(resumed_at);
                    let eta = (done > 0).then(|| elapsed * (steps - step) / done);
                    let preview = match job.wants_preview() {
                        true => self.engine.call(|engine| Ok(engine.preview(&generation))),
                        false => Ok(None),
                    };
                    match preview {
                        Ok(preview) => {
                            job.publish(Progress { step, steps, eta }, preview);
                            let active =
                                ActiveJob { job, input, generation, stepping_since, resumed_at, saves };
                            self.jobs.active.push(active);
                        }
                        Err(error) => self.write(job.fail(error.to_string())),
                    }
                }
            }
        }
    }

    fn finish(&mut self, mut job: ClaimedJob, generation: Generation<M>, steps: u32) {
        let span = tracing::info_span!(target: traces::TARGET, parent: job.span(), "finish", steps = traces::number(steps));
        let outcome =
            self.engine.call(|engine| Ok((engine.warnings(&generation), engine.finish(generation)?)));
        drop(span);
        match outcome {
            Ok((warnings, images)) => {
                job.warn(warnings);
                let duration = self.queue.now().since(job.started_at());
                let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                let count = u32::try_from(images.len()).unwrap_or(u32::MAX);
                for _ in 0..count {
                    self.metrics.image(job.endpoint(), duration / count);
                }
                tracing::info!(job = %job.id(), attempt = job.attempt(), steps, duration_ms, "drawn");
                match job.s3_config().cloned() {
                    None => self.write(job.complete(images)),
                    Some(bucket) => self.errands.store(job, bucket, images),
                }
            }
            Err(error) => self.write(job.fail(error.to_string())),
        }
    }
}
