//! What is answered from memory is what is on the disk.

use super::*;

/// Asks for the job twice, so that it is in memory if it may be, and compares it with the disk.
#[track_caller]
fn assert_agrees(test: &TestQueue, id: &JobId) {
    for _ in 0..2 {
        let told = test.find(id);
        let on_disk = test.queue.inner.store.find(&endpoint(), id, test.queue.now()).unwrap();
        assert_eq!(format!("{told:?}"), format!("{on_disk:?}"));
    }
}

fn is_in_memory(test: &TestQueue, id: &JobId) -> bool {
    test.queue.inner.store.recent(&endpoint(), id, test.queue.now()).is_some()
}

/// Brings a job into memory, changes it, and looks whether its old state is gone from there.
#[track_caller]
fn assert_drops(test: &TestQueue, id: &JobId, change: impl FnOnce()) {
    assert_agrees(test, id);
    assert!(is_in_memory(test, id));
    change();
    assert!(!is_in_memory(test, id));
    assert_agrees(test, id);
}

#[test]
fn every_change_of_a_job_drops_it_from_memory() {
    let test = TestQueue::new();
    let id = test.submit("{}");
    let mut claimed = None;
    assert_drops(&test, &id, || claimed = Some(test.claim()));
    let job = claimed.take().unwrap();
    assert_drops(&test, &id, || assert!(ended(job.release())));
    assert_drops(&test, &id, || claimed = Some(test.claim()));
    let job = claimed.take().unwrap();
    assert_drops(&test, &id, || assert!(ended(job.fail("No."))));
    assert_drops(&test, &id, || assert_eq!(test.retry(&id), Some(Ok(()))));
    let job = test.claim();
    assert_drops(&test, &id, || assert!(ended(job.complete(vec![image("a")]))));
    assert_eq!(test.find(&id).unwrap().images.len(), 1);
    assert_drops(&test, &id, || test.run(test.queue.forget(&endpoint(), &id)).unwrap());
    assert!(test.find(&id).is_none());

    let id = test.submit("{}");
    assert_drops(&test, &id, || assert_eq!(test.cancel(&id), Some(JobStatus::Cancelled)));
    let id = test.submit("{}");
    assert_drops(&test, &id, || assert_eq!(test.run(test.queue.purge(&endpoint())).unwrap(), 1));
    let id = test.submit("{}");
    assert_drops(&test, &id, || test.pass(Duration::from_hours(24)));
    let id = test.submit("{}");
    test.find(&id);
    test.pass(Duration::from_hours(24));
    test.queue.sweep().unwrap();
    assert!(!is_in_memory(&test, &id) && test.find(&id).is_none());
}

#[test]
fn the_numbers_are_those_on_the_disk() {
    let test = TestQueue::new();
    let numbers = || test.queue.inner.store.numbers(&endpoint()).unwrap();
    assert_eq!(numbers(), QueueNumbers::default());
    let first = test.submit("{}");
    test.pass(Duration::from_secs(1));
    test.submit(&"x".repeat(10_000));
    let queued = numbers();
    assert_eq!((queued.jobs.in_queue, queued.oldest_queued), (2, Some(START)));
    assert!(queued.queued_bytes > 14_000, "{queued:?}");
    assert!(ended(test.claim().fail("No.")));
    test.retry(&first).unwrap().unwrap();
    assert!(ended(test.claim().complete(vec![])));
    let ended = numbers();
    assert_eq!(ended.jobs, JobCounts { completed: 1, in_queue: 1, retried: 1, ..JobCounts::default() });
    assert!(ended.queued_bytes < queued.queued_bytes);
    let mut test = test;
    test.reopen();
    assert_eq!(test.queue.inner.store.numbers(&endpoint()).unwrap(), ended);
}

#[test]
fn a_queue_without_room_for_a_byte_more_takes_no_job() {
    let settings = QueueSettings { queue_bytes: 10_000, ..QueueSettings::default() };
    let test = TestQueue::with(settings);
    let mut worker = test.queue.enter_worker(&endpoint());
    worker.set(WorkerState::Idle);
    let wait = || test.run(test.queue.expected_wait(&[&endpoint()])).unwrap();
    assert_eq!(wait(), Some(Duration::ZERO));
    test.submit("{}");
    test.submit("{}");
    assert_eq!(wait(), None);
    assert!(matches!(
        test.run(test.queue.submit(new_job("{}"))),
        Err(QueueError::TooManyBytesQueued { limit: 10_000 })
    ));
    worker.note_load(true);
    assert!(ended(test.claim().fail("No.")));
    assert_eq!(wait(), None, "its model could not be loaded");
    worker.note_load(false);
    assert_eq!(wait(), Some(Duration::ZERO));
}

#[test]
fn a_job_waits_for_what_the_running_one_still_needs() {
    let test = TestQueue::new();
    let mut worker = test.queue.enter_worker(&endpoint());
    let wait = || test.run(test.queue.expected_wait(&[&endpoint()])).unwrap().unwrap();
    let seconds = Duration::from_secs;
    test.submit("{}");
    worker.set(WorkerState::Running);
    let job = test.claim();
    test.pass(seconds(20));
    assert!(ended(job.complete(vec![])));
    test.submit("{}");
    let job = test.claim();
    assert_eq!(wait(), seconds(20), "as long as the last one");
    test.pass(seconds(5));
    assert_eq!(wait(), seconds(15));
    job.publish(Progress { step: 1, steps: 3, eta: Some(seconds(10)) }, None);
    assert_eq!(wait(), seconds(10), "it says so itself");
    test.pass(seconds(4));
    test.submit("{}");
    assert_eq!(wait(), seconds(26));
    test.pass(seconds(60));
    assert_eq!(wait(), seconds(60), "the oldest one has waited so long");
    assert!(ended(job.fail("No.")));
}
