//! Jobs from their submission to their claim.

use super::*;

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
    assert_eq!(
        job.images,
        [0, 1].map(|index| ImageRef { index, seed: u64::MAX, place: ImagePlace::Here, prompts: None })
    );
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
fn workers_claim_and_are_woken_for_the_jobs_of_their_endpoint_only() {
    let test = TestQueue::new();
    let another = EndpointId::new("another");
    let theirs = test.submit_job(NewJob { endpoint: another.clone(), ..new_job("{}") });
    assert!(test.queue.claim(&endpoint(), "24").unwrap().is_none());
    test.queue.wait_for_work(&endpoint(), Duration::ZERO);
    let ours = test.submit("{}");
    assert_eq!(*test.claim().id(), ours);
    assert!(!test.queue.has_work(&endpoint()).unwrap() && test.queue.has_work(&another).unwrap());
    // Our empty claim has not hidden their job from them.
    test.queue.wait_for_work(&another, LONG);
    assert_eq!(*test.queue.claim(&another, "24").unwrap().unwrap().id(), theirs);
}

#[test]
fn each_endpoint_has_a_queue_limit_of_its_own() {
    let test = TestQueue::with(QueueSettings { queue_limit: 1, ..QueueSettings::default() });
    test.submit("{}");
    let refused = test.run(test.queue.submit(new_job("{}")));
    assert!(matches!(refused, Err(QueueError::TooManyQueued { limit: 1 })), "{refused:?}");
    test.submit_job(NewJob { endpoint: EndpointId::new("another"), ..new_job("{}") });
}

#[test]
fn each_job_is_claimed_once_by_several_threads() {
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
fn no_job_is_queued_beyond_the_limit() {
    let test = TestQueue::with(QueueSettings { queue_limit: 2, ..Default::default() });
    let first = test.submit("{}");
    test.submit("{}");
    let refused = test.run(test.queue.submit(new_job("{}"))).unwrap_err();
    assert_eq!(refused, QueueError::TooManyQueued { limit: 2 });
    test.cancel(&first);
    test.submit("{}");
    // Each input takes a page.
    let test = TestQueue::with(QueueSettings { queue_bytes: 10_000, ..Default::default() });
    let first = test.submit("{}");
    test.submit("{}");
    let refused = test.run(test.queue.submit(new_job("{}"))).unwrap_err();
    assert_eq!(refused, QueueError::TooManyBytesQueued { limit: 10_000 });
    test.cancel(&first);
    test.submit("{}");
}

#[test]
fn a_job_during_which_the_process_crashed_twice_waits_behind_the_others() {
    let mut test = TestQueue::new();
    let suspect = test.submit("{}");
    for _ in 0..2 {
        let job = test.claim();
        assert_eq!(*job.id(), suspect, "one crash may be chance, so it keeps its place");
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
