//! A job in a worker's hands, which ends exactly once.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::running::Running;
use super::{JobQueue, QueueError};
use crate::domain::{EndpointId, JobId, NewImage, Policy, Progress, S3Config, StoredImage, Timestamp};
use crate::store::{Claim, End};

/// A webhook is told of progress this often at most.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(1);

/// A claim. Each way to end it consumes it and says whether it took effect: it did not if the job was
/// cancelled, forgotten or is another attempt's by now. Dropped without an end, as a panic does, it fails.
pub struct ClaimedJob {
    queue: JobQueue,
    claim: Claim,
    running: Arc<Running>,
    /// When its webhook was last told of its progress.
    told_at: Cell<Option<Timestamp>>,
    ended: bool,
}

/// Why a worker should let go of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    /// Its time to live is over; there is no row to write to any more.
    Gone,
}

/// An end that could not be written, with all that is needed to try again.
pub struct Unwritten {
    job: ClaimedJob,
    end: End,
    error: QueueError,
}

/// Whether the end took effect.
pub type Ended = Result<bool, Box<Unwritten>>;

impl ClaimedJob {
    pub(super) fn new(queue: JobQueue, claim: Claim, running: Arc<Running>) -> Self {
        Self { queue, claim, running, told_at: Cell::new(None), ended: false }
    }

    pub fn complete(self, images: Vec<NewImage>) -> Ended {
        self.end(End::Completed { images: images.into() })
    }

    /// The same, with the pictures in the client's bucket.
    pub fn complete_stored(self, images: Vec<StoredImage>) -> Ended {
        self.end(End::Stored { images: images.into() })
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

    /// Puts it back at its old place in the queue, as at a shutdown. It is not held against the job.
    pub fn release(self) -> Ended {
        self.end(End::Released)
    }

    /// Lets go of it without a write: the next start finds it in progress and puts it back.
    pub fn abandon(mut self) {
        self.leave();
    }

    pub fn id(&self) -> &JobId {
        &self.claim.id
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

    /// Where the pictures go, if not here.
    pub fn s3_config(&self) -> Option<&S3Config> {
        self.claim.s3_config.as_ref()
    }

    pub fn started_at(&self) -> Timestamp {
        self.claim.started_at
    }

    /// Makes known how far it is; `preview`, a small PNG file, is how its first picture looks so far.
    pub fn publish(&self, progress: Progress, preview: Option<Vec<u8>>) {
        self.queue.inner.board.publish(&self.claim.id, &self.running, progress, preview, self.queue.now());
        if progress.step > 0 && self.claim.webhook.is_some_and(|events| events.progress) {
            self.tell(progress);
        }
    }

    /// Tells the webhook, unless it was told just before. What cannot be written is not worth waiting for.
    fn tell(&self, progress: Progress) {
        let (now, inner) = (self.queue.now(), &self.queue.inner);
        if self.told_at.get().is_some_and(|told_at| now.since(told_at) < BETWEEN_PROGRESS) {
            return;
        }
        self.told_at.set(Some(now));
        let mail = Arc::clone(&inner.mail);
        let message = inner.store.announce_progress(&self.claim.id, self.claim.attempt, progress, now);
        message.after(move |()| mail.signal.raise()).send_off();
    }

    /// Whether somebody would see a preview, and it is time for one.
    pub fn wants_preview(&self) -> bool {
        let followed = self.queue.inner.board.is_followed(&self.claim.id);
        self.running.wants_preview(followed, self.queue.now())
    }

    /// Asks memory and the clock, so that it may be called at each step.
    pub fn stop_requested(&self) -> Option<StopReason> {
        if self.running.is_cancelled() {
            Some(StopReason::Cancelled)
        } else if self.queue.now() >= self.claim.expires_at {
            Some(StopReason::Gone)
        } else {
            None
        }
    }

    /// Whether it has been worked on for longer than its policy allows.
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
        if let (true, Some(status)) = (effect, status) {
            inner.metrics.job_ended(&self.claim.endpoint, status);
        }
        if self.claim.webhook.is_some() {
            inner.mail.signal.raise();
        }
        if status.is_none() {
            inner.desks.of(&self.claim.endpoint).signal.raise();
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
