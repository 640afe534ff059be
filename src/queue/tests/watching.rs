//! Clients that wait for a job or watch it.

use super::*;

#[test]
fn a_waiting_client_learns_of_the_end() {
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
fn an_end_between_listening_and_reading_is_not_missed() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let mut listener = test.queue.inner.board.listen(&id);
    assert!(ended(test.claim().complete(vec![])));
    test.run(async { tokio::time::timeout(LONG, listener.next_event()).await.unwrap() });
}

#[test]
fn a_wait_ends_at_its_timeout_when_the_job_is_removed_or_when_the_server_stops() {
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

fn step(step: u32) -> Progress {
    Progress { step, steps: 3, eta: None }
}

#[test]
fn the_latest_preview_is_seen_by_all_and_asked_for_by_a_look() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    assert_eq!(test.queue.latest(&id), None);
    let claimed = test.claim();
    claimed.publish(step(1), None);
    assert!(!claimed.wants_preview());
    for _ in 0..2 {
        assert_eq!(test.queue.latest(&id), Some(Frame { progress: step(1), preview: None }));
    }
    assert!(claimed.wants_preview());
    claimed.publish(step(2), Some(b"fox".to_vec()));
    claimed.publish(step(3), None);
    for _ in 0..2 {
        let expected = Frame { progress: step(3), preview: Some(b"fox"[..].into()) };
        assert_eq!(test.queue.latest(&id), Some(expected));
    }
    assert!(ended(claimed.complete(vec![])));
    assert_eq!(test.queue.latest(&id), None);
}

#[test]
fn a_stream_has_one_cursor_for_all_readers_that_goes_with_its_job() {
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
fn a_follower_misses_nothing_when_interrupted_and_wants_previews_while_it_exists() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let mut follower = test.queue.follow(&endpoint(), &id);
    let next = |follower: &mut Follower| match test.run(follower.next()).unwrap() {
        Some(News::State(job)) => job.status.to_string(),
        other => panic!("{other:?}"),
    };
    // Polled once and dropped while the thread that reads rows is busy.
    let interrupt = |follower: &mut Follower| {
        let (free, busy) = std::sync::mpsc::channel::<()>();
        test.run(async {
            let held = tokio::task::spawn_blocking(move || busy.recv().is_err());
            assert!(follower.next().now_or_never().is_none());
            drop(free);
            held.await.unwrap();
        });
    };
    assert_eq!(next(&mut follower), "IN_QUEUE");
    interrupt(&mut follower);
    let job = test.claim();
    assert!(job.wants_preview());
    interrupt(&mut follower); // after it was told of the claim, before it has read the row
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
        "the latest preview, though it is older than the step"
    );
    assert!(ended(job.fail("No.")));
    assert!(
        matches!(test.run(late.next()).unwrap(), Some(News::State(job)) if job.error.as_deref() == Some("No."))
    );
    assert!(test.run(late.next()).unwrap().is_none());
    drop(late);
    assert!(test.queue.inner.board.is_empty());
}
