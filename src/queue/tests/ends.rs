//! How jobs end, and which ends take no effect.

use super::*;

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
fn a_cancel_stops_the_job_even_if_its_client_hung_up() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let job = test.claim();
    // Polled once, so that it is sent, and then dropped.
    test.run(async { tokio::time::timeout(Duration::ZERO, test.queue.cancel(&endpoint(), &id)).await.ok() });
    test.submit("{}"); // committed after the cancel, so that is committed by now
    assert_eq!(job.stop_requested(), Some(StopReason::Cancelled));
}

#[test]
fn orphans_go_back_into_the_queue_until_the_process_crashed_too_often() {
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
    assert_eq!(test.status(&id), Some(JobStatus::InQueue), "a retry starts the count again");
}

#[test]
fn a_superseded_attempt_ends_nothing() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let first = test.claim();
    // A second process would do this, if the lock did not forbid it.
    let requeued = test.queue.inner.store.requeue_orphans(3, String::new(), START).wait().unwrap();
    assert_eq!(requeued.requeued, 1);
    let second = test.claim();
    assert!(!ended(first.complete(vec![image("stale")])));
    assert_eq!(test.status(&id), Some(JobStatus::InProgress));
    assert!(ended(second.complete(vec![])));
}

#[test]
fn a_released_job_is_next_and_its_release_counts_as_no_crash() {
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
fn only_jobs_that_failed_or_timed_out_can_be_retried() {
    let test = TestQueue::new();
    let (id, later) = (test.submit("{}"), test.submit("{}"));
    assert_eq!(test.retry(&id), Some(Err(NoRetry::Status(JobStatus::InQueue))));
    let job = test.claim();
    assert_eq!(test.retry(&id), Some(Err(NoRetry::Status(JobStatus::InProgress))));
    assert!(ended(job.fail("No.")));
    assert_eq!(test.retry(&id), Some(Ok(())));
    let job = test.find(&id).unwrap();
    assert_eq!((job.status, job.error, job.started_at), (JobStatus::InQueue, None, None));
    assert_eq!(*test.claim().id(), later, "a retried job goes to the end of the queue");
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
fn purge_removes_an_endpoints_queued_jobs_only() {
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
    assert_eq!(test.queue.counts(&EndpointId::new("other")).unwrap().in_queue, 1);
    assert!(ended(claimed.complete(vec![])));
}

#[test]
fn pictures_that_a_full_disk_refused_are_written_once_there_is_space() {
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
fn warnings_are_kept_with_a_completed_job_and_forgotten_with_it() {
    let test = TestQueue::new();
    let sentence = |number: u32| format!("<warning-{number}> has no effect.");
    let id = test.submit("{}");
    let mut job = test.claim();
    job.warn([sentence(1), sentence(2)]);
    assert!(ended(job.complete(vec![image("png")])));
    assert_eq!(test.find(&id).unwrap().warnings, [sentence(1), sentence(2)]);

    // An end that is not completion has an error instead.
    let failed = test.submit("{}");
    let mut job = test.claim();
    job.warn([sentence(3)]);
    assert!(ended(job.fail("so")));
    assert!(test.find(&failed).unwrap().warnings.is_empty() && !test.on_disk("<warning-3>"));

    assert!(test.on_disk("<warning-1>"));
    test.pass(Duration::from_hours(1));
    test.queue.sweep().unwrap();
    assert!(!test.on_disk("<warning-"));
}
