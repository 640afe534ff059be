//! Where HTTP and the workers meet: jobs are submitted, claimed, watched, cancelled and deleted here.
//!
//! What must survive a restart is in [`crate::store`]. What need not (who waits for a job, how far it is, whether it is
//! to stop) is on the [`board`]. The queue knows nothing of HTTP or of engines. Methods that block are for background
//! threads and say so; the others are async.

mod board;
mod claimed_job;
mod claims;
mod endpoint_workers;
mod error;
mod outbox;
mod readiness;
mod receivers;
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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use claimed_job::{ClaimedJob, Ended, StopReason, Unwritten};
pub use error::QueueError;
pub use outbox::{BETWEEN_TRIES, OutboxMessage, TRIES};
pub use settings::QueueSettings;
pub use stop::Stop;
pub use stream::{Drained, Follower, News};
pub use sweep::Swept;
pub use workers::{WorkerCounts, WorkerEntry, WorkerState};

use crate::domain::{
    Clock, EndpointId, Frame, Job, JobCounts, JobId, JobOutline, JobStatus, NewJob, Progress, Timestamp,
};
use crate::metrics::{Load, Metrics, WorkerLoad};
pub use crate::store::{Describe, JobFilter, JobPage, NoRetry};
use crate::store::{Inserted, NewRow, Store, StoreError};

/// The queue. A clone is another handle to the same one.
#[derive(Clone)]
pub struct JobQueue {
    inner: Arc<Inner>,
}

/// A job that was submitted, by this request or by the same request earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    pub id: JobId,
    pub status: JobStatus,
}

struct Inner {
    store: Store,
    settings: QueueSettings,
    clock: Clock,
    // These are shared with the writer's thread, which must not hold the store itself.
    board: Arc<board::Board>,
    outbox: Arc<outbox::Outbox>,
    workers: endpoint_workers::WorkersByEndpoint,
    disk: readiness::Disk,
    metrics: Metrics,
    /// Whether new jobs are to go elsewhere.
    draining: AtomicBool,
}

impl JobQueue {
    /// Opens the data folder, and puts jobs back into the queue that were in progress when the last process ended.
    /// Blocks. `describe` writes the body of a webhook's messages.
    pub fn open(
        data_dir: &Path,
        settings: QueueSettings,
        clock: Clock,
        describe: Describe,
        metrics: Metrics,
    ) -> Result<Self, QueueError> {
        let store = Store::open(data_dir, describe)?;
        if let Some(time) = store.latest_time()? {
            clock.advance_to(time);
        }
        let times = settings.max_attempts;
        let error = format!("The server stopped {times} times while it worked on this job; it was given up.");
        let orphans = store.requeue_orphans(times, error, clock.now()).wait()?;
        if orphans.requeued + orphans.failed > 0 {
            tracing::info!(requeued = orphans.requeued, failed = orphans.failed, "found unfinished jobs");
        }
        let (board, outbox, workers, disk, draining) = Default::default();
        let inner = Inner { store, settings, clock, board, outbox, workers, disk, metrics, draining };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Queues a job, unless the same request made one before. When this returns, the job is on the disk.
    pub async fn submit(&self, job: NewJob) -> Result<Submitted, QueueError> {
        let Inner { store, settings, workers, .. } = &*self.inner;
        let id = JobId::at(job.kind, settings.node);
        let retention = settings.retention_for(job.kind);
        let workers = workers.get(&job.endpoint);
        let row = NewRow { id: id.clone(), job, retention, now: self.now() };
        let limit = settings.limit();
        let insert = store.insert(row, limit).after(move |_| workers.signal.raise());
        match insert.await? {
            Inserted::Queued => Ok(Submitted { id, status: JobStatus::InQueue }),
            Inserted::Known(id, status) => Ok(Submitted { id, status }),
            Inserted::KeyReused => Err(QueueError::KeyReused),
            Inserted::Full => Err(QueueError::TooManyQueued { limit: limit.jobs }),
            Inserted::TooLarge => Err(QueueError::TooManyBytesQueued { limit: limit.bytes }),
        }
    }

    /// The job, if it belongs to `endpoint` and has not expired.
    pub async fn find(&self, endpoint: &EndpointId, id: &JobId) -> Result<Option<Arc<Job>>, QueueError> {
        let now = self.now();
        if let Some(job) = self.inner.store.recent(endpoint, id, now) {
            return Ok(Some(job));
        }
        let (endpoint, id) = (endpoint.clone(), id.clone());
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

    /// How far a running job is, with its latest preview. Asks for previews: the next call may have a newer one.
    pub fn latest(&self, id: &JobId) -> Option<Frame> {
        self.inner.board.running(id)?.latest(self.now())
    }

    /// Lets a running job end after its next step, with its pictures as far as they are drawn. False if it does not run.
    pub fn cut_short(&self, id: &JobId) -> bool {
        let running = self.inner.board.running(id);
        running.is_some_and(|running| {
            running.cut_short();
            true
        })
    }

    /// Asks an endpoint's workers to unload their engines as soon as they have no jobs. The next job loads one again.
    pub fn unload(&self, endpoint: &EndpointId) {
        self.inner.workers.get(endpoint).ask_to_unload();
    }

    /// The job once it has ended, or as it stands after `timeout` or at a shutdown.
    pub async fn wait(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Arc<Job>>, QueueError> {
        let status = |job: &Arc<Job>| job.status;
        self.wait_for_end(id, timeout, || self.find(endpoint, id), status).await
    }

    /// The same without the job's input, which may be large.
    pub async fn wait_for_outline(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<JobOutline>, QueueError> {
        let status = |job: &JobOutline| job.status;
        self.wait_for_end(id, timeout, || self.outline(endpoint, id), status).await
    }

    /// What `look` finds once the job has ended, or after `timeout` or at a shutdown.
    async fn wait_for_end<T, F: Future<Output = Result<Option<T>, QueueError>>>(
        &self,
        id: &JobId,
        timeout: Duration,
        look: impl Fn() -> F,
        status: impl Fn(&T) -> JobStatus,
    ) -> Result<Option<T>, QueueError> {
        let deadline = tokio::time::Instant::now() + timeout;
        // Before the query, or an end between the two would be missed.
        let mut listener = self.inner.board.listen(id);
        loop {
            let job = look().await?;
            let over = job.as_ref().is_none_or(|job| status(job).is_final());
            if over || self.inner.board.is_closed() {
                return Ok(job);
            }
            if tokio::time::timeout_at(deadline, listener.next_event()).await.is_err() {
                return look().await;
            }
        }
    }

    /// Cancels a job and returns its state afterwards. A job that has ended keeps its state.
    pub async fn cancel(&self, endpoint: &EndpointId, id: &JobId) -> Result<Option<JobStatus>, QueueError> {
        let (board, outbox) = (Arc::clone(&self.inner.board), Arc::clone(&self.inner.outbox));
        let cancelled = id.clone();
        let cancel = self.inner.store.cancel(endpoint, id, self.now()).after(move |status| {
            if *status == Some(JobStatus::Cancelled) {
                board.cancel(&cancelled);
                board.notify(&cancelled);
                outbox.signal.raise();
            }
        });
        Ok(cancel.await?)
    }

    /// Deletes a job that has ended before its time is over. The bytes that it leaves in the log go with the next sweep.
    pub async fn forget(&self, endpoint: &EndpointId, id: &JobId) -> Result<(), QueueError> {
        let store = &self.inner.store;
        if store.expire(endpoint, id, self.now()).await? {
            self.inner.board.notify(id);
            while store.forget(id, self.now()).await?.more {}
        }
        Ok(())
    }

    /// Puts a job that failed or timed out back into the queue, without its output, or says why not.
    pub async fn retry(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
    ) -> Result<Option<Result<(), NoRetry>>, QueueError> {
        let workers = self.inner.workers.get(endpoint);
        Ok(self.inner.store.retry(endpoint, id, self.now()).after(move |_| workers.signal.raise()).await?)
    }

    /// Removes an endpoint's queued jobs and returns how many. Running jobs go on.
    pub async fn purge(&self, endpoint: &EndpointId) -> Result<u64, QueueError> {
        // Only what is queued now: otherwise a busy client could keep this going for ever.
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

    /// An endpoint's jobs by state.
    pub fn counts(&self, endpoint: &EndpointId) -> Result<JobCounts, QueueError> {
        Ok(self.inner.store.numbers(endpoint)?.jobs)
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

    /// The numbers that the metrics page shows of the database and the workers.
    pub async fn load(&self) -> Result<(Load, Vec<WorkerLoad>), QueueError> {
        let now = self.now();
        let load = self.reading(move |store| store.load(now)).await?;
        Ok((load, self.inner.workers.load()))
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Says whether new jobs are to go elsewhere. Those that come nevertheless are taken: nobody knows whether another server
    /// would.
    pub fn set_draining(&self, draining: bool) {
        self.inner.draining.store(draining, Ordering::Relaxed);
    }

    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Relaxed)
    }

    /// Whether [`Self::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.inner.board.is_closed()
    }

    /// Wakes everyone who waits, and finishes the writes under way. Later writes are refused. Blocks.
    pub fn close(&self) {
        self.inner.board.close();
        self.wake_workers();
        self.wake_outbox();
        self.inner.store.close();
    }

    /// Runs statements on the write connection, so that tests can provoke failures.
    #[cfg(test)]
    pub(crate) fn provoke(&self, statements: &'static str) {
        self.inner.store.provoke(statements);
    }

    /// Runs a query on a thread that may block.
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
