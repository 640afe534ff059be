//! The queue on a real database in a temporary folder, with the clock in hand.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::domain::{ImagePlace, ImageRef, JobKind, NewImage, Policy, StoredImage};

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
        let queue = JobQueue::open(dir.path(), settings, clock.clone(), describe()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { queue, dir, now, clock, runtime }
    }

    /// As after a crash: what is in progress stays so in the file. All handles must be gone.
    pub fn reopen(&mut self) {
        self.queue.close();
        let elsewhere = TempDir::new().unwrap();
        let closed =
            JobQueue::open(elsewhere.path(), QueueSettings::default(), self.clock.clone(), describe())
                .unwrap();
        drop(std::mem::replace(&mut self.queue, closed));
        self.queue =
            JobQueue::open(self.dir.path(), QueueSettings::default(), self.clock.clone(), describe())
                .unwrap();
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
        self.run(self.queue.find(&endpoint(), id)).unwrap()
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
        self.run(self.queue.counts(&endpoint())).unwrap()
    }

    /// Whether `needle` is in any file of the data folder.
    pub fn on_disk(&self, needle: &str) -> bool {
        fs::read_dir(self.dir.path()).unwrap().any(|entry| {
            let bytes = fs::read(entry.unwrap().path()).unwrap();
            bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
        })
    }
}

/// What webhooks are told here: the state, and how far it is.
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
    NewJob {
        endpoint: endpoint(),
        kind: JobKind::Run,
        input: input.to_owned(),
        seed: u64::MAX,
        policy: Policy::default(),
        s3_config: None,
        once: None,
        webhook: None,
    }
}

fn image(content: &str) -> NewImage {
    NewImage { seed: u64::MAX, png: Some(content.as_bytes().to_vec()) }
}

fn ended(ended: Ended) -> bool {
    ended.map_err(|unwritten| unwritten.error().clone()).unwrap()
}

#[test]
fn a_job_goes_from_submit_to_its_pictures() {
    let test = TestQueue::new();
    let id = test.submit(r#"{"prompt":  "a fox"}"#);
    assert_eq!(test.status(&id), Some(JobStatus::InQueue));
    test.pass(Duration::from_secs(2));
    let job = test.claim();
    assert_eq!((job.id(), job.attempt(), job.seed()), (&id, 1, u64::MAX));
    assert_eq!(job.input(), r#"{"prompt":  "a fox"}"#);
    let progress = Progress { step: 1, steps: 2, eta: None };
    job.publish(progress, None);
    assert_eq!(test.queue.progress(&id), Some(progress));
    test.pass(Duration::from_secs(3));
    assert!(ended(job.complete(vec![image("first"), image("second")])));
    assert_eq!(test.queue.progress(&id), None);

    let job = test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::Completed);
    assert_eq!(job.input, r#"{"prompt":  "a fox"}"#);
    assert_eq!(job.gpu.as_deref(), Some("24"));
    assert_eq!(job.images, [0, 1].map(|index| ImageRef { index, seed: u64::MAX, place: ImagePlace::Here }));
    assert_eq!(job.started_at.unwrap().since(job.created_at), Duration::from_secs(2));
    assert_eq!(job.finished_at.unwrap().since(job.started_at.unwrap()), Duration::from_secs(3));
    let png = |endpoint: &EndpointId, index| test.run(test.queue.image(endpoint, &id, index)).unwrap();
    assert_eq!(png(&endpoint(), 1), Some(b"second".to_vec()));
    assert_eq!(png(&endpoint(), 2), None);
    assert_eq!(png(&EndpointId::new("another"), 0), None);
    assert!(test.run(test.queue.find(&EndpointId::new("another"), &id)).unwrap().is_none());
    assert!(test.queue.inner.board.is_empty());
}

#[test]
fn jobs_are_claimed_by_priority_then_age() {
    let test = TestQueue::new();
    let mut low = new_job("{}");
    low.policy.low_priority = true;
    let expected = [test.submit_job(low.clone()), test.submit("{}"), test.submit("{}"), test.submit_job(low)];
    let claimed = [0; 4].map(|_| test.claim());
    let order = claimed.each_ref().map(|job| job.id().clone());
    assert_eq!(order, [1, 2, 0, 3].map(|i: usize| expected[i].clone()));
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
}

#[test]
fn workers_claim_the_jobs_of_their_endpoint_alone_and_hear_of_no_others() {
    let test = TestQueue::new();
    let another = EndpointId::new("another");
    let theirs = test.submit_job(NewJob { endpoint: another.clone(), ..new_job("{}") });
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
    test.queue.wait_for_work(&endpoint(), Duration::ZERO);
    let ours = test.submit("{}");
    assert_eq!(*test.claim().id(), ours);
    // Our fruitless claim has not hidden their job from them.
    test.queue.wait_for_work(&another, LONG);
    assert_eq!(*test.queue.claim(&another, "24").unwrap().unwrap().id(), theirs);
}

#[test]
fn a_full_queue_is_its_endpoints_own_matter() {
    let test = TestQueue::with(QueueSettings { queue_limit: 1, ..QueueSettings::default() });
    test.submit("{}");
    let refused = test.run(test.queue.submit(new_job("{}")));
    assert!(matches!(refused, Err(QueueError::TooManyQueued { limit: 1 })), "{refused:?}");
    test.submit_job(NewJob { endpoint: EndpointId::new("another"), ..new_job("{}") });
}

#[test]
fn several_threads_claim_each_job_once() {
    let test = TestQueue::new();
    let submitted: HashSet<_> = (0..60).map(|_| test.submit("{}")).collect();
    let queue = &test.queue;
    let claimed: Vec<JobId> = std::thread::scope(|scope| {
        let work = || {
            let mut ids = Vec::new();
            while let Some(job) = queue.claim(&endpoint(), "24").unwrap() {
                ids.push(job.id().clone());
                assert!(ended(job.complete(vec![])));
            }
            ids
        };
        let threads = [0; 4].map(|_| scope.spawn(work));
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claimed.len(), 60);
    assert_eq!(claimed.into_iter().collect::<HashSet<_>>(), submitted);
}

#[test]
fn a_thousand_concurrent_submits_are_all_durable() {
    let mut test = TestQueue::new();
    let ids: Vec<JobId> = test.run(async {
        let submits: Vec<_> = (0..1000)
            .map(|i| {
                let queue = test.queue.clone();
                tokio::spawn(async move { queue.submit(new_job(&i.to_string())).await.unwrap() })
            })
            .collect();
        let mut ids = Vec::new();
        for submit in submits {
            ids.push(submit.await.unwrap().id);
        }
        ids
    });
    test.reopen();
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(test.find(id).unwrap().input, i.to_string());
    }
    assert_eq!(test.counts(), JobCounts { in_queue: 1000, ..Default::default() });
}

#[test]
fn cancelling_a_queued_job_ends_it() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    assert_eq!(test.cancel(&id), Some(JobStatus::Cancelled));
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
    assert_eq!(test.cancel(&JobId::new(JobKind::Run)), None);
}

#[test]
fn cancelling_a_running_job_keeps_it_cancelled() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let job = test.claim();
    assert_eq!(job.stop_requested(), None);
    assert_eq!(test.cancel(&id), Some(JobStatus::Cancelled));
    assert_eq!(job.stop_requested(), Some(StopReason::Cancelled));
    assert!(!ended(job.complete(vec![image("<too late>")])));
    let job = test.find(&id).unwrap();
    assert_eq!((job.status, job.images.len()), (JobStatus::Cancelled, 0));
    assert!(!test.on_disk("<too late>"));
}

#[test]
fn cancelling_an_ended_job_leaves_it_as_it_is() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    assert!(ended(test.claim().complete(vec![])));
    assert_eq!(test.cancel(&id), Some(JobStatus::Completed));
}

#[test]
fn a_cancel_whose_client_hung_up_still_stops_the_job() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let job = test.claim();
    // Polled once, so sent, then dropped.
    test.run(async { tokio::time::timeout(Duration::ZERO, test.queue.cancel(&endpoint(), &id)).await.ok() });
    test.submit("{}"); // committed later, so by now the cancel is
    assert_eq!(job.stop_requested(), Some(StopReason::Cancelled));
}

#[test]
fn orphans_go_back_until_they_ended_the_process_too_often() {
    let mut test = TestQueue::new();
    let id = test.submit("{}");
    for attempt in 1..=3 {
        let job = test.claim();
        assert_eq!(job.attempt(), attempt);
        job.abandon();
        test.reopen();
    }
    let job = test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::Failed);
    assert_eq!(
        job.error.as_deref(),
        Some("The server stopped 3 times while it worked on this job; it was given up.")
    );
    assert_eq!(test.counts(), JobCounts { failed: 1, retried: 2, ..Default::default() });
    assert_eq!(test.retry(&id), Some(Ok(())));
    test.claim().abandon();
    test.reopen();
    assert_eq!(test.status(&id), Some(JobStatus::InQueue), "a retry begins to count anew");
}

#[test]
fn a_superseded_attempt_ends_nothing() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let first = test.claim();
    // As a second process would, which this one's lock forbids.
    let requeued = test.queue.inner.store.requeue_orphans(3, String::new(), START).wait().unwrap();
    assert_eq!(requeued.requeued, 1);
    let second = test.claim();
    assert!(!ended(first.complete(vec![image("stale")])));
    assert_eq!(test.status(&id), Some(JobStatus::InProgress));
    assert!(ended(second.complete(vec![])));
}

#[test]
fn a_released_job_is_next_and_nothing_is_held_against_it() {
    let mut test = TestQueue::new();
    let id = test.submit("{}");
    test.submit("{}");
    for _ in 0..5 {
        let job = test.claim();
        assert_eq!(*job.id(), id);
        assert!(ended(job.release()));
    }
    test.reopen();
    assert_eq!(test.find(&id).unwrap().status, JobStatus::InQueue);
    assert_eq!(test.find(&id).unwrap().started_at, None);
}

#[test]
fn a_claim_dropped_without_an_end_fails() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    drop(test.claim());
    assert_eq!(test.status(&id), Some(JobStatus::Failed));
    assert!(test.find(&id).unwrap().error.is_some());
}

#[test]
fn only_what_failed_or_timed_out_can_be_retried() {
    let test = TestQueue::new();
    let (id, later) = (test.submit("{}"), test.submit("{}"));
    assert_eq!(test.retry(&id), Some(Err(NoRetry::Status(JobStatus::InQueue))));
    let job = test.claim();
    assert_eq!(test.retry(&id), Some(Err(NoRetry::Status(JobStatus::InProgress))));
    assert!(ended(job.fail("No.")));
    assert_eq!(test.retry(&id), Some(Ok(())));
    let job = test.find(&id).unwrap();
    assert_eq!((job.status, job.error, job.started_at), (JobStatus::InQueue, None, None));
    assert_eq!(*test.claim().id(), later, "a retry queues behind the others");
    let job = test.claim();
    assert_eq!(job.attempt(), 2);
    assert!(ended(job.time_out()));
    assert_eq!(test.retry(&id), Some(Ok(())));
    assert!(ended(test.claim().complete(vec![])));
    assert_eq!(test.retry(&id), Some(Err(NoRetry::Status(JobStatus::Completed))));
    assert_eq!(test.retry(&JobId::new(JobKind::Run)), None);
    assert_eq!(test.counts().retried, 2);
}

#[test]
fn purge_takes_an_endpoints_queued_jobs_only() {
    let test = TestQueue::new();
    let running = test.submit("{}");
    let claimed = test.claim();
    let queued: Vec<_> = (0..20).map(|_| test.submit("{}")).collect();
    let other = NewJob { endpoint: EndpointId::new("other"), ..new_job("{}") };
    test.submit_job(other);
    assert_eq!(test.run(test.queue.purge(&endpoint())).unwrap(), 20);
    assert!(queued.iter().all(|id| test.find(id).is_none()));
    assert_eq!(test.status(&running), Some(JobStatus::InProgress));
    assert_eq!(test.counts(), JobCounts { in_progress: 1, ..Default::default() });
    assert_eq!(test.run(test.queue.counts(&EndpointId::new("other"))).unwrap().in_queue, 1);
    assert!(ended(claimed.complete(vec![])));
}

#[test]
fn beyond_the_limit_nothing_is_queued() {
    let test = TestQueue::with(QueueSettings { queue_limit: 2, ..Default::default() });
    let first = test.submit("{}");
    test.submit("{}");
    let refused = test.run(test.queue.submit(new_job("{}"))).unwrap_err();
    assert_eq!(refused, QueueError::TooManyQueued { limit: 2 });
    test.cancel(&first);
    test.submit("{}");
}

#[test]
fn each_kind_is_remembered_for_its_own_time() {
    let test = TestQueue::new();
    let kinds = [
        (JobKind::Run, 1800),
        (JobKind::RunSync { waited: false }, 60),
        (JobKind::RunSync { waited: true }, 300),
    ];
    for (kind, seconds) in kinds {
        let id = test.submit_job(NewJob { kind, ..new_job("{}") });
        test.pass(Duration::from_secs(100));
        assert!(ended(test.claim().complete(vec![image("png")])));
        test.pass(Duration::from_millis(seconds * 1000 - 1));
        assert!(test.find(&id).is_some(), "{kind:?}");
        test.pass(Duration::from_millis(1));
        assert!(test.find(&id).is_none(), "{kind:?}");
        assert_eq!(test.run(test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
        assert_eq!(test.cancel(&id), None);
        assert_eq!(test.retry(&id), None);
    }
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: 3, clean: true });
    assert_eq!(test.counts(), JobCounts::default());
}

#[test]
fn a_job_is_gone_at_its_ttl_whatever_its_state() {
    let test = TestQueue::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    let mortal = || test.submit_job(NewJob { policy, ..new_job("{}") });
    let (done, running, queued) = (mortal(), mortal(), mortal());
    assert!(ended(test.claim().complete(vec![])));
    let job = test.claim();
    test.pass(Duration::from_secs(10));
    assert_eq!(job.stop_requested(), Some(StopReason::Gone));
    assert!([done, running, queued].iter().all(|id| test.find(id).is_none()));
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
    assert_eq!(test.queue.sweep().unwrap().jobs, 3);
    assert!(!ended(job.complete(vec![image("too late")])));
}

#[test]
fn a_waiter_hears_of_the_end() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let claimed = test.claim();
    let job = test.run(async {
        let (queue, name) = (test.queue.clone(), id.clone());
        let waiter = tokio::spawn(async move { queue.wait(&endpoint(), &name, LONG).await.unwrap() });
        tokio::task::spawn_blocking(move || assert!(ended(claimed.fail("No.")))).await.unwrap();
        waiter.await.unwrap()
    });
    assert_eq!(job.unwrap().status, JobStatus::Failed);
    assert!(test.queue.inner.board.is_empty());
}

#[test]
fn an_end_between_listening_and_asking_is_heard() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let mut listener = test.queue.inner.board.listen(&id);
    assert!(ended(test.claim().complete(vec![])));
    test.run(async { tokio::time::timeout(LONG, listener.heard()).await.unwrap() });
}

#[test]
fn a_wait_ends_with_its_time_the_jobs_removal_or_the_server() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let job = test.run(test.queue.wait(&endpoint(), &id, Duration::ZERO)).unwrap().unwrap();
    assert_eq!(job.status, JobStatus::InQueue);
    let removed = test.run(async {
        let (queue, name) = (test.queue.clone(), id.clone());
        let waiter = tokio::spawn(async move { queue.wait(&endpoint(), &name, LONG).await.unwrap() });
        test.queue.purge(&endpoint()).await.unwrap();
        waiter.await.unwrap()
    });
    assert!(removed.is_none());
    let id = test.submit("{}");
    test.queue.close();
    let job = test.run(test.queue.wait(&endpoint(), &id, LONG)).unwrap();
    assert_eq!(job.unwrap().status, JobStatus::InQueue);
    assert!(matches!(test.run(test.queue.submit(new_job("{}"))), Err(QueueError::Unavailable(_))));
    test.queue.wait_for_work(&endpoint(), LONG);
}

#[test]
fn pictures_drawn_before_a_full_disk_are_written_when_there_is_room() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let job = test.claim();
    test.queue.provoke("pragma max_page_count = 1");
    let unwritten = job.complete(vec![image(&"x".repeat(100_000))]).unwrap_err();
    assert!(matches!(unwritten.error(), QueueError::Unavailable(_)), "{}", unwritten.error());
    assert_eq!(test.status(&id), Some(JobStatus::InProgress));
    test.queue.provoke("pragma max_page_count = 1000000");
    assert!(ended(unwritten.retry()));
    assert_eq!(test.find(&id).unwrap().images.len(), 1);
}

#[test]
fn no_byte_of_what_is_forgotten_is_left_in_the_files() {
    let test = TestQueue::new();
    let short = Policy { ttl: Duration::from_mins(1), ..Policy::default() };
    // Neighbours that live on are what makes SQLite move cells about, and leave copies behind.
    let (mut forgotten, mut kept) = (Vec::new(), Vec::new());
    for i in 0..240_usize {
        let lives = i % 7 == 3;
        let prompt = format!("<prompt-{i:04}>{}", "~".repeat(i * 37 % 3000));
        let id = test
            .submit_job(NewJob { policy: if lives { Policy::default() } else { short }, ..new_job(&prompt) });
        if i % 3 == 0 {
            let job = test.claim();
            let png = job.input().replace("prompt", "image").repeat(1 + i % 4);
            assert!(ended(job.complete(vec![image(&png), image(&png)])));
        }
        let markers = [format!("<prompt-{i:04}>"), format!("<image-{i:04}>")];
        if lives { kept.push((id, markers)) } else { forgotten.push((id, markers)) }
    }
    let left = |jobs: &[(JobId, [String; 2])]| -> usize {
        jobs.iter().flat_map(|(_, markers)| markers).filter(|marker| test.on_disk(marker)).count()
    };
    assert!(left(&forgotten) > forgotten.len());
    test.pass(Duration::from_mins(1));
    assert_eq!(test.queue.sweep().unwrap(), Swept { jobs: forgotten.len() as u64, clean: true });
    assert_eq!(left(&forgotten), 0);
    assert!(left(&kept) >= kept.len() && kept.iter().all(|(id, _)| test.find(id).is_some()));

    let size = || fs::metadata(test.dir.path().join("stablehand.db")).unwrap().len();
    let before = size();
    test.pass(Duration::from_hours(24));
    assert!(test.queue.sweep().unwrap().clean);
    assert_eq!((left(&forgotten), left(&kept)), (0, 0));
    assert!(size() < before / 2, "{before} bytes became {}", size());
}

#[test]
fn a_job_that_ended_the_process_twice_waits_behind_the_others() {
    let mut test = TestQueue::new();
    let suspect = test.submit("{}");
    for _ in 0..2 {
        let job = test.claim();
        assert_eq!(*job.id(), suspect, "once may be chance, and it keeps its place");
        job.abandon();
        test.reopen();
    }
    let innocent = test.submit("{}");
    let patient = test
        .submit_job(NewJob { policy: Policy { low_priority: true, ..Policy::default() }, ..new_job("{}") });
    let order = [(); 3].map(|()| {
        let job = test.claim();
        let id = job.id().clone();
        assert!(ended(job.complete(vec![])));
        id
    });
    assert_eq!(order, [innocent, suspect, patient]);
}

#[test]
fn the_device_is_known_from_the_claim_on() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let gpu = || test.find(&id).unwrap().gpu;
    let job = test.claim();
    assert_eq!(gpu().as_deref(), Some("24"));
    assert!(ended(job.release()));
    assert_eq!(gpu(), None);
    assert!(ended(test.claim().fail("No.")));
    assert_eq!(gpu().as_deref(), Some("24"));
}

fn for_bucket() -> NewJob {
    let config = crate::domain::S3Config::parse(&serde_json::json!({
        "accessId": "AKIAIOSFODNN7EXAMPLE", "accessSecret": "wJalrXUtnFEMI-K7MDENG", "bucketName": "foxes",
        "endpointUrl": "https://s3.example",
    }));
    NewJob { s3_config: config.unwrap(), ..new_job("{}") }
}

/// How often `text` lies in the data folder.
fn traces(test: &TestQueue, secret: &str) -> usize {
    let files =
        std::fs::read_dir(test.dir.path()).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(secret.len()).filter(|window| *window == secret.as_bytes()).count()).sum()
}

#[test]
fn a_buckets_keys_are_forgotten_as_soon_as_the_job_has_ended() {
    type EndOf = fn(&TestQueue, ClaimedJob);
    let ends: [EndOf; 4] = [
        |_, job| assert!(ended(job.complete_stored(Vec::new()))),
        |_, job| assert!(ended(job.fail("so"))),
        |_, job| assert!(ended(job.time_out())),
        |test, job| {
            test.cancel(job.id());
            job.abandon();
        },
    ];
    for end in ends {
        let test = TestQueue::new();
        let id = test.submit_job(for_bucket());
        let job = test.claim();
        assert_eq!(job.s3_config(), for_bucket().s3_config.as_ref());
        assert!(ended(job.release()), "and needs them again");
        let job = test.claim();
        assert_eq!(job.s3_config(), for_bucket().s3_config.as_ref());
        assert!(traces(&test, "wJalrXUtnFEMI-K7MDENG") > 0);
        end(&test, job);
        test.queue.sweep().unwrap();
        assert_eq!(traces(&test, "wJalrXUtnFEMI-K7MDENG"), 0);
        assert_eq!(traces(&test, "AKIAIOSFODNN7EXAMPLE"), 0);
        assert!(test.find(&id).is_some());
    }
}

#[test]
fn a_job_whose_bucket_is_forgotten_is_not_tried_again() {
    let test = TestQueue::new();
    let id = test.submit_job(for_bucket());
    assert!(ended(test.claim().fail("so")));
    assert_eq!(test.retry(&id), Some(Err(NoRetry::NoBucket)));
    assert_eq!(test.status(&id), Some(JobStatus::Failed));
}

#[test]
fn a_picture_in_a_bucket_is_known_by_its_url() {
    let test = TestQueue::new();
    let id = test.submit_job(for_bucket());
    let url = "https://s3.example/foxes/0.png?X-Amz-Signature=0123".to_owned();
    assert!(ended(test.claim().complete_stored(vec![
        StoredImage { seed: 7, url: Some(url.clone()) },
        StoredImage { seed: 8, url: None }
    ])));
    let places = [ImagePlace::Bucket(url), ImagePlace::Withheld];
    assert_eq!(
        test.find(&id).unwrap().images.into_iter().map(|image| image.place).collect::<Vec<_>>(),
        places
    );
    assert_eq!(test.run(test.queue.image(&endpoint(), &id, 0)).unwrap(), None);
    test.pass(Duration::from_hours(1));
    test.queue.sweep().unwrap();
    assert_eq!(traces(&test, "X-Amz-Signature"), 0);
}

#[test]
fn a_clock_set_back_between_two_starts_expires_nothing_early_and_keeps_nothing_longer() {
    let mut test = TestQueue::new();
    let id = test.submit("{}");
    assert!(ended(test.claim().complete(vec![])));
    test.pass(Duration::from_mins(10));
    test.queue.sweep().unwrap();
    (test.clock, test.now) = Clock::manual(START - Duration::from_hours(24));
    test.reopen();
    test.pass(Duration::from_mins(20) - Duration::from_millis(1));
    assert!(test.find(&id).is_some());
    test.pass(Duration::from_millis(1));
    assert!(test.find(&id).is_none());
    assert_eq!(test.queue.sweep().unwrap().jobs, 1);
    // With nothing left to forget, the machine's clock is as good as any.
    (test.clock, test.now) = Clock::manual(START - Duration::from_hours(24));
    test.reopen();
    assert_eq!(test.queue.now(), START - Duration::from_hours(24));
}

fn step(step: u32) -> Progress {
    Progress { step, steps: 3, eta: None }
}

#[test]
fn a_stream_is_drained_by_whoever_reads_and_forgotten_with_its_job() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let drain = || {
        let drained = test.run(test.queue.drain(&endpoint(), &id, Duration::ZERO)).unwrap().unwrap();
        (
            drained.job.status,
            drained.frame.map(|frame| (frame.progress.step, frame.preview)),
            drained.images.len(),
        )
    };
    assert_eq!(drain(), (JobStatus::InQueue, None, 0));
    let job = test.claim();
    job.publish(step(1), Some(b"png".to_vec()));
    job.publish(step(2), None);
    let preview: Arc<[u8]> = Arc::from(*b"png");
    assert_eq!(drain(), (JobStatus::InProgress, Some((2, Some(preview))), 0), "the latest of each");
    assert_eq!(drain(), (JobStatus::InProgress, None, 0));
    job.publish(step(3), None);
    assert!(ended(job.complete(vec![image("first"), image("second")])));
    assert_eq!(drain(), (JobStatus::Completed, None, 2));
    assert_eq!(drain(), (JobStatus::Completed, None, 0));
    test.pass(Duration::from_mins(30));
    assert_eq!(test.queue.sweep().unwrap().jobs, 1);
    assert!(test.run(test.queue.drain(&endpoint(), &id, LONG)).unwrap().is_none());
    assert!(test.queue.inner.board.is_empty());
}

#[test]
fn a_follower_that_is_interrupted_misses_nothing_and_wants_previews_while_it_lives() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let mut follower = test.queue.follow(&endpoint(), &id);
    let next = |follower: &mut Follower| match test.run(follower.next()).unwrap() {
        Some(News::State(job)) => job.status.to_string(),
        other => panic!("{other:?}"),
    };
    // Polled once and dropped: a row takes a trip to another thread, so none is read.
    let interrupt = |follower: &mut Follower| {
        test.run(async { assert!(follower.next().now_or_never().is_none()) });
    };
    assert_eq!(next(&mut follower), "IN_QUEUE");
    interrupt(&mut follower);
    let job = test.claim();
    assert!(job.wants_preview());
    interrupt(&mut follower); // having heard of the claim, before it has read the row
    assert_eq!(next(&mut follower), "IN_PROGRESS");
    job.publish(step(1), Some(b"png".to_vec()));
    assert!(!job.wants_preview(), "one a second");
    test.pass(Duration::from_secs(1));
    assert!(job.wants_preview());
    job.publish(step(2), None);
    drop(follower);
    assert!(!job.wants_preview());

    let mut late = test.queue.follow(&endpoint(), &id);
    assert!(
        matches!(test.run(late.next()).unwrap(), Some(News::State(job)) if job.status == JobStatus::InProgress)
    );
    let Some(News::Step(frame)) = test.run(late.next()).unwrap() else { panic!("a step") };
    assert_eq!(
        (frame.progress.step, frame.preview.is_some()),
        (2, true),
        "the picture so far, though of before"
    );
    assert!(ended(job.fail("No.")));
    assert!(
        matches!(test.run(late.next()).unwrap(), Some(News::State(job)) if job.error.as_deref() == Some("No."))
    );
    assert!(test.run(late.next()).unwrap().is_none());
    drop(late);
    assert!(test.queue.inner.board.is_empty());
}
