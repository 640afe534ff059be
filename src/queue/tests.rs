//! The queue on a real database in a temporary folder, with a clock that the test moves.

mod buckets;
mod claims;
mod ends;
mod forgetting;
mod memory;
mod watching;

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::domain::{DrawnPrompts, ImagePlace, ImageRef, JobKind, NewImage, Policy, StoredImage};
use crate::store::QueueNumbers;

const START: Timestamp = Timestamp(1_700_000_000_000);
const LONG: Duration = Duration::from_mins(10);

/// A queue, its folder and its clock. Its methods block, as a test does.
pub(crate) struct TestQueue {
    pub queue: JobQueue,
    pub dir: TempDir,
    pub now: Arc<AtomicI64>,
    clock: Clock,
    runtime: Runtime,
}

impl TestQueue {
    pub fn new() -> Self {
        Self::with(QueueSettings::default())
    }

    pub fn with(settings: QueueSettings) -> Self {
        let dir = TempDir::new().unwrap();
        let (clock, now) = Clock::manual(START);
        let queue = open(dir.path(), settings, &clock);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_time()
            .build()
            .unwrap();
        Self { queue, dir, now, clock, runtime }
    }

    /// Opens the folder again as after a crash: jobs in progress are still so in the file. All other handles must be
    /// dropped before.
    pub fn reopen(&mut self) {
        self.queue.close();
        let elsewhere = TempDir::new().unwrap();
        let closed = open(elsewhere.path(), QueueSettings::default(), &self.clock);
        drop(std::mem::replace(&mut self.queue, closed));
        self.queue = open(self.dir.path(), QueueSettings::default(), &self.clock);
    }

    pub fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn submit(&self, input: &str) -> JobId {
        self.submit_job(new_job(input))
    }

    pub fn submit_job(&self, job: NewJob) -> JobId {
        self.run(self.queue.submit(job)).unwrap().id
    }

    pub fn find(&self, id: &JobId) -> Option<Job> {
        self.run(self.queue.find(&endpoint(), id)).unwrap().map(Arc::unwrap_or_clone)
    }

    pub fn status(&self, id: &JobId) -> Option<JobStatus> {
        self.find(id).map(|job| job.status)
    }

    pub fn claim(&self) -> ClaimedJob {
        self.queue.claim(&endpoint(), "24").unwrap().unwrap()
    }

    pub fn cancel(&self, id: &JobId) -> Option<JobStatus> {
        self.run(self.queue.cancel(&endpoint(), id)).unwrap()
    }

    pub fn retry(&self, id: &JobId) -> Option<Result<(), NoRetry>> {
        self.run(self.queue.retry(&endpoint(), id)).unwrap()
    }

    pub fn counts(&self) -> JobCounts {
        self.queue.counts(&endpoint()).unwrap()
    }

    /// Whether `text` is in any file of the data folder.
    pub fn on_disk(&self, text: &str) -> bool {
        fs::read_dir(self.dir.path()).unwrap().any(|entry| {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
    }
}

fn open(dir: &Path, settings: QueueSettings, clock: &Clock) -> JobQueue {
    JobQueue::open(dir, settings, clock.clone(), describe(), Metrics::default()).unwrap()
}

/// Messages to webhooks say the state here, and how far the job is.
fn describe() -> Describe {
    Arc::new(|job, progress, _| match progress {
        Some(progress) => format!("{} {}/{}", job.status, progress.step, progress.steps),
        None => job.status.to_string(),
    })
}

pub(crate) fn endpoint() -> EndpointId {
    EndpointId::default()
}

pub(crate) fn new_job(input: &str) -> NewJob {
    NewJob::run(endpoint(), input, u64::MAX)
}

fn image(content: &str) -> NewImage {
    NewImage { seed: u64::MAX, png: Some(content.as_bytes().to_vec()), prompts: None }
}

fn ended(ended: Ended) -> bool {
    ended.map_err(|unwritten| unwritten.error().clone()).unwrap()
}
