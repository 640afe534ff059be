//! The workers' side of the queue: waiting for work, and claiming it.

use std::sync::Arc;
use std::time::Duration;

use tracing::field::Empty;

use super::running::Running;
use super::{ClaimedJob, Inner, JobQueue, QueueError, WorkerCounts, WorkerEntry};
use crate::domain::EndpointId;
use crate::store::Claim;
use crate::traces;

impl JobQueue {
    /// Claims an endpoint's next job for a worker on `gpu`: by priority, then by age. Jobs during which the process
    /// has crashed twice come after the others. Blocks.
    pub fn claim(&self, endpoint: &EndpointId, gpu: &str) -> Result<Option<ClaimedJob>, QueueError> {
        let Inner { store, board, workers, outbox, metrics, .. } = &*self.inner;
        let workers = workers.get(endpoint);
        let generation = workers.signal.generation();
        // On the board in the order of commits, so that no cancel comes before there is an attempt to cancel.
        let (after_board, after_outbox) = (Arc::clone(board), Arc::clone(outbox));
        let claim = store.claim(endpoint, gpu, self.now()).after(move |claim| {
            if let Some(claim) = claim {
                after_board.start(&claim.id, running(claim));
                if claim.webhook.is_some_and(|events| events.start) {
                    after_outbox.signal.raise();
                }
            }
        });
        let Some(claim) = claim.wait()? else {
            workers.signal.found_empty(generation);
            return Ok(None);
        };
        metrics.job_started(&claim.endpoint, claim.started_at.since(claim.created_at));
        let run = board.running(&claim.id).unwrap_or_else(|| Arc::new(running(&claim)));
        let queue_wait = claim.started_at.since(claim.created_at);
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "job",
            job.id = %claim.id,
            job.endpoint = %claim.endpoint,
            job.attempt = traces::number(claim.attempt),
            job.queue_wait_ms = traces::number(queue_wait.as_millis()),
            job.end = Empty,
        );
        traces::follow(&span, claim.trace);
        Ok(Some(ClaimedJob::new(self.clone(), claim, run, span)))
    }

    /// Whether an endpoint has a job to claim. Blocks.
    pub fn has_work(&self, endpoint: &EndpointId) -> Result<bool, QueueError> {
        let workers = self.inner.workers.get(endpoint);
        let generation = workers.signal.generation();
        let has_work = self.inner.store.has_queued(endpoint, self.now())?;
        if !has_work {
            workers.signal.found_empty(generation);
        }
        Ok(has_work)
    }

    /// Blocks until an endpoint may have work that the last claim did not see, [`Self::wake_workers`] is called or
    /// `timeout` is over.
    pub fn wait_for_work(&self, endpoint: &EndpointId, timeout: Duration) {
        if !self.is_closed() {
            self.inner.workers.get(endpoint).signal.wait(timeout);
        }
    }

    /// Makes every `wait_for_work` return.
    pub fn wake_workers(&self) {
        self.inner.workers.wake_all();
    }

    /// An entry for a new worker in its endpoint's counts, as initializing.
    pub fn enter_worker(&self, endpoint: &EndpointId) -> WorkerEntry {
        WorkerEntry::new(self.inner.workers.get(endpoint))
    }

    pub fn workers(&self, endpoint: &EndpointId) -> WorkerCounts {
        self.inner.workers.get(endpoint).states.counts()
    }
}

fn running(claim: &Claim) -> Running {
    Running::new(claim.endpoint.clone(), claim.started_at)
}
