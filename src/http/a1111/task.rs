//! The requests that are being drawn, as `/progress`, `/interrupt` and `/skip` see them. A1111 works on one at a time;
//! here others wait, or run beside it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{EndpointId, JobId, Timestamp};
use crate::queue::JobQueue;

/// How many ids of ended tasks are remembered.
const REMEMBERED: usize = 64;

/// All requests that are being drawn, the oldest first.
#[derive(Default)]
pub struct Tasks(Mutex<Listed>);

#[derive(Default)]
struct Listed {
    open: Vec<Arc<Task>>,
    /// The ids of those that have ended, the latest last.
    ended: VecDeque<String>,
    /// When the latest one came in.
    latest: Option<Timestamp>,
}

/// One request.
pub struct Task {
    /// The client's id, or one of our own.
    pub id: String,
    /// A1111's name for what it does: `txt2img` or `img2img`.
    pub kind: &'static str,
    pub begun_at: Timestamp,
    pub batches: u32,
    /// The steps of the first pass, where there are two.
    pub first_pass: Option<u32>,
    now: Mutex<Now>,
}

/// How far a task is.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// Batches that have ended.
    pub done: u32,
    /// The job of the current batch.
    pub job: Option<(EndpointId, JobId)>,
    pub is_interrupted: bool,
    /// The current batch is to end.
    pub is_skipped: bool,
}

/// A task on the list. Dropping it takes it off.
pub struct OpenTask<'a> {
    tasks: &'a Tasks,
    task: Arc<Task>,
}

impl Tasks {
    pub fn open(&self, task: Task) -> OpenTask<'_> {
        let task = Arc::new(task);
        let mut listed = self.listed();
        listed.latest = Some(task.begun_at);
        listed.open.push(Arc::clone(&task));
        OpenTask { tasks: self, task }
    }

    /// The task that runs, or else the one that waits longest; and whether it runs.
    pub fn shown(&self, queue: &JobQueue) -> Option<(Arc<Task>, bool)> {
        let open = self.listed().open.clone();
        let running = open.iter().find(|task| task.is_running(queue)).map(|task| (Arc::clone(task), true));
        running.or_else(|| open.into_iter().next().map(|task| (task, false)))
    }

    pub fn find(&self, id: &str) -> Option<Arc<Task>> {
        self.listed().open.iter().find(|task| task.id == id).map(Arc::clone)
    }

    pub fn has_ended(&self, id: &str) -> bool {
        self.listed().ended.iter().any(|ended| ended == id)
    }

    pub fn ids(&self) -> Vec<String> {
        self.listed().open.iter().map(|task| task.id.clone()).collect()
    }

    pub fn latest(&self) -> Option<Timestamp> {
        self.listed().latest
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    pub fn new(
        id: String,
        kind: &'static str,
        begun_at: Timestamp,
        (batches, first_pass): (u32, Option<u32>),
    ) -> Self {
        Self { id, kind, begun_at, batches, first_pass, now: Mutex::default() }
    }

    pub fn now(&self) -> Now {
        self.lock().clone()
    }

    pub fn is_running(&self, queue: &JobQueue) -> bool {
        let now = self.now();
        now.done > 0 || now.job.is_some_and(|(_, id)| queue.progress(&id).is_some())
    }

    /// Stops the current batch, and all that follow if `whole`. Its job ends with its pictures as far as they are drawn. A
    /// job that waits has none, and is cancelled.
    pub async fn stop(&self, queue: &JobQueue, whole: bool) {
        let job = {
            let mut now = self.lock();
            now.is_interrupted |= whole;
            now.is_skipped = true;
            now.job.clone()
        };
        if let Some((endpoint, id)) = job {
            stop_job(queue, &endpoint, &id).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stop_job(queue: &JobQueue, endpoint: &EndpointId, id: &JobId) {
    if queue.cut_short(id) {
        return;
    }
    if let Err(error) = queue.cancel(endpoint, id).await {
        tracing::warn!(%error, "a job that was interrupted could not be cancelled");
    }
}

impl OpenTask<'_> {
    /// Whether no further batch is wanted.
    pub fn is_interrupted(&self) -> bool {
        self.task.lock().is_interrupted
    }

    /// Whether the current batch was stopped. An interruption may come between two batches, and stops the one that begins.
    pub fn is_skipped(&self) -> bool {
        let now = self.task.lock();
        now.is_skipped || now.is_interrupted
    }

    pub fn begin_batch(&self) {
        self.task.lock().is_skipped = false;
    }

    /// The job of the current batch is queued.
    pub async fn submitted(&self, queue: &JobQueue, endpoint: &EndpointId, id: &JobId) {
        let is_stopped = {
            let mut now = self.task.lock();
            now.job = Some((endpoint.clone(), id.clone()));
            now.is_skipped || now.is_interrupted
        };
        // Somebody stopped it in between.
        if is_stopped {
            stop_job(queue, endpoint, id).await;
        }
    }

    pub fn end_batch(&self) {
        let mut now = self.task.lock();
        now.done += 1;
        now.job = None;
    }
}

impl Drop for OpenTask<'_> {
    fn drop(&mut self) {
        let mut listed = self.tasks.listed();
        listed.open.retain(|task| !Arc::ptr_eq(task, &self.task));
        if listed.ended.len() == REMEMBERED {
            listed.ended.pop_front();
        }
        listed.ended.push_back(self.task.id.clone());
    }
}
