//! A job that a worker has claimed. It ends exactly once.

use std::cell::Cell;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::Span;

use super::running::Running;
use super::{JobQueue, QueueError};
use crate::domain::{
    EndpointId, JobId, JobStatus, NewImage, Policy, Progress, S3Config, StoredImage, Timestamp,
};
use crate::store::{Claim, End};
use crate::traces;

/// The shortest time between two messages about progress to a webhook.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// A claimed job. Each way to end it consumes it and says whether the end took effect. It does not if meanwhile the
/// job was cancelled, expired or was claimed again. If this value is dropped without an end, as in a panic, the job
/// fails.
pub struct ClaimedJob {
    queue: JobQueue,
    claim: Claim,
    running: Arc<Running>,
    /// From its claim to its end, for a trace.
    span: Span,
    /// What its client should know about how it was drawn.
    warnings: Vec<String>,
    /// When the last message about progress was written for its webhook.
    announced_at: Cell<Option<Timestamp>>,
    /// Alive while a save is being written.
    saving: Weak<()>,
    ended: bool,
}

/// Why a worker should stop working on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    /// It has expired: there is no row to write to any more.
    Gone,
}

/// An end that could not be written. It can be tried again.
pub struct Unwritten {
    job: ClaimedJob,
    end: End,
    error: QueueError,
}

/// Whether the end took effect.
pub type Ended = Result<bool, Box<Unwritten>>;

impl ClaimedJob {
    pub(super) fn new(queue: JobQueue, claim: Claim, running: Arc<Running>, span: Span) -> Self {
        Self {
            queue,
            claim,
            running,
            span,
            warnings: Vec::new(),
            announced_at: Cell::new(None),
            saving: Weak::new(),
            ended: false,
        }
    }

    /// Notes what its client should know about how it was drawn, for when it completes: one sentence each.
    pub fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.extend(warnings);
    }

    pub fn complete(self, images: Vec<NewImage>) -> Ended {
        let warnings = self.warnings.as_slice().into();
        self.end(End::Completed { images: images.into(), warnings })
    }

    /// Completes the job with its pictures in the client's bucket.
    pub fn complete_stored(self, images: Vec<StoredImage>) -> Ended {
        let warnings = self.warnings.as_slice().into();
        self.end(End::Stored { images: images.into(), warnings })
    }

    /// `error`: one sentence for the client.
    pub fn fail(self, error: impl Into<String>) -> Ended {
        self.end(End::Failed { error: error.into() })
    }

    pub fn time_out(self) -> Ended {
        let limit = self.claim.policy.execution_timeout.as_millis();
        let error = format!("The job was stopped after {limit} ms of work, its executionTimeout.");
        self.end(End::TimedOut { error })
    }

    /// Puts it back at its old place in the queue, as at a shutdown. This does not count as a crash.
    pub fn release(self) -> Ended {
        self.end(End::Released)
    }

    /// The engine died over it, outside of its steps. It goes back to its place in the queue, and this counts as a crash:
    /// after too many of them, the job fails.
    pub fn crash(self) -> Ended {
        let most = self.queue.inner.settings.max_attempts;
        if self.claim.crashes + 1 < most {
            return self.end(End::Crashed);
        }
        self.fail(format!(
            "The engine stopped unexpectedly {most} times while it worked on this job; it was given up."
        ))
    }

    /// Drops it without a write. The next start finds it in progress and puts it back into the queue.
    pub fn abandon(mut self) {
        self.leave();
    }

    pub fn id(&self) -> &JobId {
        &self.claim.id
    }

    /// For a trace: what is done for the job is part of it.
    pub fn span(&self) -> &Span {
        &self.span
    }

    pub fn endpoint(&self) -> &EndpointId {
        &self.claim.endpoint
    }

    pub fn attempt(&self) -> u32 {
        self.claim.attempt
    }

    /// The request's `input`, as JSON text exactly as sent.
    pub fn input(&self) -> &str {
        &self.claim.input
    }

    pub fn seed(&self) -> u64 {
        self.claim.seed
    }

    pub fn policy(&self) -> Policy {
        self.claim.policy
    }

    /// The client's bucket, if the pictures go there.
    pub fn s3_config(&self) -> Option<&S3Config> {
        self.claim.s3_config.as_ref()
    }

    pub fn started_at(&self) -> Timestamp {
        self.claim.started_at
    }

    /// Publishes how far the job is. `preview` is a small PNG file of its first picture so far.
    pub fn publish(&self, progress: Progress, preview: Option<Vec<u8>>) {
        self.queue.inner.board.publish(&self.claim.id, &self.running, progress, preview, self.queue.now());
        if progress.step > 0 && self.claim.webhook.is_some_and(|events| events.progress) {
            self.announce(progress);
        }
    }

    /// Writes a message for the webhook, unless there was one just before. Does not wait: if the write fails, the message
    /// is lost, and the next one replaces it.
    fn announce(&self, progress: Progress) {
        let (now, inner) = (self.queue.now(), &self.queue.inner);
        if self.announced_at.get().is_some_and(|announced_at| now.since(announced_at) < BETWEEN_PROGRESS) {
            return;
        }
        self.announced_at.set(Some(now));
        let outbox = Arc::clone(&inner.outbox);
        let message = inner.store.announce_progress(&self.claim.id, self.claim.attempt, progress, now);
        message.after(move |()| outbox.signal.raise()).send_off();
    }

    /// Saves where it is, in bytes that only the engine can read, so that a later attempt goes on from there. Does not wait. If
    /// the write fails, the last save stays, and the job goes on.
    pub fn save(&mut self, state: Vec<u8>) {
        let saving = Arc::new(());
        self.saving = Arc::downgrade(&saving);
        let write = self.queue.inner.store.save_state(&self.claim.id, self.claim.attempt, state);
        // Dropped with the write, whatever becomes of that.
        write.after(move |_| drop(saving)).send_off();
    }

    /// Whether the last save is still being written.
    pub fn is_saving(&self) -> bool {
        self.saving.strong_count() > 0
    }

    /// Where an earlier attempt was saved. Blocks.
    pub fn saved(&self) -> Result<Option<Vec<u8>>, QueueError> {
        Ok(self.queue.inner.store.saved_state(&self.claim.id, self.claim.attempt)?)
    }

    /// Whether somebody would see a preview and the last one is old enough.
    pub fn wants_preview(&self) -> bool {
        let followed = self.queue.inner.board.is_followed(&self.claim.id);
        self.running.wants_preview(followed, self.queue.now())
    }

    /// Why the worker should stop, if it should. Reads memory only, so it may be called at every step.
    pub fn stop_requested(&self) -> Option<StopReason> {
        if self.running.is_cancelled() {
            Some(StopReason::Cancelled)
        } else if self.queue.now() >= self.claim.expires_at {
            Some(StopReason::Gone)
        } else {
            None
        }
    }

    /// Whether its pictures are wanted as far as they are drawn.
    pub fn is_cut_short(&self) -> bool {
        self.running.is_cut_short()
    }

    /// Whether it has run for longer than its policy allows.
    pub fn is_overdue(&self) -> bool {
        self.queue.now().since(self.claim.started_at) >= self.claim.policy.execution_timeout
    }

    fn end(mut self, end: End) -> Ended {
        match self.write(end.clone()) {
            Ok(effect) => {
                self.leave();
                Ok(effect)
            }
            Err(error) => Err(Box::new(Unwritten { job: self, end, error })),
        }
    }

    fn write(&self, end: End) -> Result<bool, QueueError> {
        let inner = &self.queue.inner;
        let status = end.status();
        let effect = inner.store.end(&self.claim.id, self.claim.attempt, end, self.queue.now()).wait()?;
        inner.board.notify(&self.claim.id);
        if effect {
            self.span.record("job.end", status.map_or("released", JobStatus::as_str));
            if matches!(status, Some(JobStatus::Failed | JobStatus::TimedOut)) {
                traces::mark_failed(&self.span);
            }
        }
        if let (true, Some(status)) = (effect, status) {
            inner.metrics.job_ended(&self.claim.endpoint, status);
            if status == JobStatus::Completed {
                let took = self.queue.now().since(self.claim.started_at);
                inner.workers.get(&self.claim.endpoint).pace.note(took);
            }
        }
        if self.claim.webhook.is_some() {
            inner.outbox.signal.raise();
        }
        if status.is_none() {
            inner.workers.get(&self.claim.endpoint).signal.raise();
        }
        Ok(effect)
    }

    fn leave(&mut self) {
        self.ended = true;
        self.queue.inner.board.finish(&self.claim.id, &self.running);
    }
}

impl Drop for ClaimedJob {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let error = "The worker stopped unexpectedly while it worked on this job.".to_owned();
        if let Err(error) = self.write(End::Failed { error }) {
            tracing::error!(job = %self.claim.id, attempt = self.claim.attempt, %error, "a dropped job stays in progress");
        }
        self.leave();
    }
}

impl Unwritten {
    pub fn retry(self: Box<Self>) -> Ended {
        self.job.end(self.end)
    }

    pub fn job(&self) -> &ClaimedJob {
        &self.job
    }

    pub fn error(&self) -> &QueueError {
        &self.error
    }

    pub fn abandon(self: Box<Self>) {
        self.job.abandon();
    }
}
