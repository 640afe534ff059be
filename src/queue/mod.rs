//! Where HTTP and the workers meet: jobs are submitted, claimed, watched, cancelled and forgotten here.
//!
//! What must survive is in [`crate::store`]; what need not (who waits, how far a job is, who is to stop)
//! is on the [`board`]. Nothing of HTTP or of the engine is known here. Methods that block, for threads of
//! their own, say so; the others are async.

mod board;
mod claimed;
mod desks;
mod error;
mod mail;
mod running;
mod settings;
mod stop;
mod stream;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod work_signal;
mod workers;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use claimed::{ClaimedJob, Ended, StopReason, Unwritten};
pub use error::QueueError;
pub use mail::{BETWEEN_TRIES, Outgoing, TRIES};
pub use settings::QueueSettings;
pub use stop::Stop;
pub use stream::{Drained, Follower, News};
pub use sweep::Swept;
pub use workers::{WorkerCounts, WorkerEntry, WorkerState};

use crate::domain::{Clock, EndpointId, Job, JobCounts, JobId, JobStatus, NewJob, Progress, Timestamp};
use crate::metrics::Metrics;
pub use crate::store::{Describe, JobFilter, JobPage, NoRetry};
use crate::store::{Inserted, NewRow, Store, StoreError};

/// The queue. A clone is another handle to the same one.
#[derive(Clone)]
pub struct JobQueue {
    inner: Arc<Inner>,
}

/// A job that was submitted, now or by the same request before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub id: JobId,
    pub status: JobStatus,
}

struct Inner {
    store: Store,
    settings: QueueSettings,
    clock: Clock,
    // Shared with what the writer's thread does after a commit, which must not hold the store itself.
    board: Arc<board::Board>,
    desks: desks::Desks,
    mail: Arc<mail::Mail>,
    metrics: Metrics,
}

impl JobQueue {
    /// Opens the data folder and puts back into the queue what was in progress when the last process
    /// died. Blocks. `describe`: what webhooks are told.
    pub fn open(
        data_dir: &Path,
        settings: QueueSettings,
        clock: Clock,
        describe: Describe,
    ) -> Result<Self, QueueError> {
        let store = Store::open(data_dir, describe)?;
        if let Some(time) = store.latest_time()? {
            clock.go_on_from(time);
        }
        let times = settings.max_attempts;
        let error = format!("The server stopped {times} times while it worked on this job; it was given up.");
        let orphans = store.requeue_orphans(times, error, clock.now()).wait()?;
        if orphans.requeued + orphans.failed > 0 {
            tracing::info!(requeued = orphans.requeued, failed = orphans.failed, "found unfinished jobs");
        }
        let (board, desks, mail, metrics) = Default::default();
        Ok(Self { inner: Arc::new(Inner { store, settings, clock, board, desks, mail, metrics }) })
    }

    /// Queues a job, unless the same request made one before. Once its id is answered, it is on the disk.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted, QueueError> {
        let Inner { store, settings, desks, .. } = &*self.inner;
        let id = JobId::new(job.kind);
        let retention = settings.retention_of(job.kind);
        let desk = desks.of(&job.endpoint);
        let row = NewRow { id: id.clone(), job, retention, now: self.now() };
        let insert = store.insert(row, settings.queue_limit).after(move |_| desk.signal.raise());
        match insert.await? {
            Inserted::Queued => Ok(Submitted { id, status: JobStatus::InQueue }),
            Inserted::Known(id, status) => Ok(Submitted { id, status }),
            Inserted::KeyReused => Err(QueueError::KeyReused),
            Inserted::Full => Err(QueueError::TooManyQueued { limit: settings.queue_limit }),
        }
    }

    /// The job, if it is that endpoint's and not yet forgotten.
    pub async fn find(&self, endpoint: &EndpointId, id: &JobId) -> Result<Option<Job>, QueueError> {
        let (endpoint, id, now) = (endpoint.clone(), id.clone(), self.now());
        self.reading(move |store| store.find(&endpoint, &id, now)).await
    }

    /// A page of an endpoint's jobs, newest first.
    pub async fn list(&self, endpoint: &EndpointId, filter: JobFilter) -> Result<JobPage, QueueError> {
        let (endpoint, now) = (endpoint.clone(), self.now());
        self.reading(move |store| store.list(&endpoint, filter, now)).await
    }

    /// How far a running job is.
    pub fn progress(&self, id: &JobId) -> Option<Progress> {
        self.inner.board.progress(id)
    }

    /// The job once it has ended, or as it stands after `timeout` or at a shutdown.
    pub async fn wait(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Job>, QueueError> {
        let deadline = tokio::time::Instant::now() + timeout;
        // Before the query, or an end between the two would go unheard.
        let mut listener = self.inner.board.listen(id);
        loop {
            let job = self.find(endpoint, id).await?;
            let over = job.as_ref().is_none_or(|job| job.status.is_final());
            if over || self.inner.board.is_closed() {
                return Ok(job);
            }
            if tokio::time::timeout_at(deadline, listener.heard()).await.is_err() {
                return self.find(endpoint, id).await;
            }
        }
    }

    /// Cancels a job that has not ended and answers its state afterwards: an ended one keeps its own.
    pub async fn cancel(&self, endpoint: &EndpointId, id: &JobId) -> Result<Option<JobStatus>, QueueError> {
        let (board, mail, name) = (Arc::clone(&self.inner.board), Arc::clone(&self.inner.mail), id.clone());
        let cancel = self.inner.store.cancel(endpoint, id, self.now()).after(move |status| {
            if *status == Some(JobStatus::Cancelled) {
                board.cancel(&name);
                board.notify(&name);
                mail.signal.raise();
            }
        });
        Ok(cancel.await?)
    }

    /// Puts a job that failed or timed out back into the queue, without its output, or answers why not.
    pub async fn retry(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
    ) -> Result<Option<Result<(), NoRetry>>, QueueError> {
        let desk = self.inner.desks.of(endpoint);
        Ok(self.inner.store.retry(endpoint, id, self.now()).after(move |_| desk.signal.raise()).await?)
    }

    /// Removes an endpoint's queued jobs and says how many; running ones go on.
    pub async fn purge(&self, endpoint: &EndpointId) -> Result<u64, QueueError> {
        // Only what is queued now, or a busy submitter would keep this going for ever.
        let newest = self.reading(Store::newest).await?;
        let mut removed = 0;
        loop {
            let step = self.inner.store.purge(endpoint, newest).await?;
            removed += step.count;
            if !step.more {
                break;
            }
        }
        self.inner.board.notify_all();
        Ok(removed)
    }

    pub async fn counts(&self, endpoint: &EndpointId) -> Result<JobCounts, QueueError> {
        let endpoint = endpoint.clone();
        self.reading(move |store| store.counts(&endpoint)).await
    }

    /// The PNG file of one of a job's pictures.
    pub async fn image(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        index: u32,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let (endpoint, id, now) = (endpoint.clone(), id.clone(), self.now());
        self.reading(move |store| store.image(&endpoint, &id, index, now)).await
    }

    pub fn workers(&self, endpoint: &EndpointId) -> WorkerCounts {
        self.inner.desks.of(endpoint).workers.counts()
    }

    /// A new worker's entry in an endpoint's counts, initializing.
    pub fn enter_worker(&self, endpoint: &EndpointId) -> WorkerEntry {
        WorkerEntry::new(self.inner.desks.of(endpoint))
    }

    /// Where everyone who has a queue counts and times what happens.
    pub fn metrics(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// All that was counted and timed, and how things stand, as Prometheus reads it.
    pub async fn metrics_page(&self) -> Result<String, QueueError> {
        let now = self.now();
        let load = self.reading(move |store| store.load(now)).await?;
        Ok(self.metrics().page(&load, &self.inner.desks.worker_load()))
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Takes an endpoint's next job for a worker on `gpu`: priority first, then age; what the process died
    /// over twice comes behind the others. Blocks.
    pub fn claim(&self, endpoint: &EndpointId, gpu: &str) -> Result<Option<ClaimedJob>, QueueError> {
        let Inner { store, board, desks, mail, .. } = &*self.inner;
        let desk = desks.of(endpoint);
        let generation = desk.signal.generation();
        // On the board in the order of commits, so that no cancel comes before there is one to signal.
        let (noted, mail) = (Arc::clone(board), Arc::clone(mail));
        let claim = store.claim(endpoint, gpu, self.now()).after(move |claim| {
            if let Some(claim) = claim {
                noted.start(&claim.id);
                if claim.webhook.is_some_and(|events| events.start) {
                    mail.signal.raise();
                }
            }
        });
        let Some(claim) = claim.wait()? else {
            desk.signal.found_empty(generation);
            return Ok(None);
        };
        self.metrics().job_started(&claim.endpoint, claim.started_at.since(claim.created_at));
        let running = board.running(&claim.id).unwrap_or_default();
        Ok(Some(ClaimedJob::new(self.clone(), claim, running)))
    }

    /// Whether an endpoint has a job to claim. Blocks.
    pub fn has_work(&self, endpoint: &EndpointId) -> Result<bool, QueueError> {
        let desk = self.inner.desks.of(endpoint);
        let generation = desk.signal.generation();
        let has_work = self.inner.store.has_queued(endpoint, self.now())?;
        if !has_work {
            desk.signal.found_empty(generation);
        }
        Ok(has_work)
    }

    /// Blocks until an endpoint may have work that the last fruitless claim has not seen, or somebody calls
    /// [`Self::wake_workers`], or `timeout` is over.
    pub fn wait_for_work(&self, endpoint: &EndpointId, timeout: Duration) {
        if !self.inner.board.is_closed() {
            self.inner.desks.of(endpoint).signal.wait(timeout);
        }
    }

    /// Makes every `wait_for_work` return.
    pub fn wake_workers(&self) {
        self.inner.desks.raise_all();
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.board.is_closed()
    }

    /// Wakes every waiter and finishes the writes under way; later ones are refused. Blocks.
    pub fn close(&self) {
        self.inner.board.close();
        self.inner.desks.raise_all();
        self.wake_mail();
        self.inner.store.close();
    }

    /// Runs statements on the write connection, for tests that make trouble.
    #[cfg(test)]
    pub(crate) fn provoke(&self, statements: &'static str) {
        self.inner.store.provoke(statements);
    }

    /// Runs a query where it may block.
    async fn reading<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || query(&inner.store)).await {
            Ok(found) => Ok(found?),
            Err(_) => Err(StoreError::Internal.into()),
        }
    }
}
