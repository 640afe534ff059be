//! Failures, and which jobs they affect.

use super::*;

#[test]
fn a_failure_fails_its_job_in_a_sentence_and_the_next_one_works() {
    for stage in ["begin", "step", "finish"] {
        let bench = Bench::new();
        let failing = bench.submit(&format!("error in {stage}"), 2);
        let next = bench.submit("a fox", 2);
        work_off(&mut bench.worker(1));
        assert_eq!(bench.error(&failing), "The model failed: it broke");
        assert!(bench.completed(&next), "after an error in {stage}");
        assert_eq!(bench.log.loaded.get(), 1);
    }
}

#[test]
fn a_panic_fails_its_job_and_the_next_one_is_drawn_by_a_new_engine() {
    for stage in ["begin", "step", "preview", "finish"] {
        let bench = Bench::new();
        let panicking = bench.submit(&format!("panic in {stage}"), 2);
        let _follower = bench.test.queue.follow(&endpoint(), &panicking);
        let next = bench.submit("a fox", 2);
        let mut worker = bench.worker(1);
        for _ in 0..8 {
            worker.tick();
        }
        assert_eq!(bench.error(&panicking), PANICKED);
        assert!(bench.completed(&next), "after a panic in {stage}");
        assert_eq!(bench.log.loaded.get(), 2);
    }
}

#[test]
fn a_panic_over_one_job_does_not_fail_the_others() {
    for stage in ["begin", "finish"] {
        let bench = Bench::new();
        let beside = bench.submit("a fox", 4);
        let panicking = bench.submit(&format!("panic in {stage}"), 2);
        let mut worker = bench.worker(2);
        for _ in 0..12 {
            worker.tick();
        }
        assert_eq!(bench.error(&panicking), PANICKED);
        assert!(bench.completed(&beside), "beside a panic in {stage}");
    }
}

#[test]
fn an_input_that_breaks_the_rules_fails_with_a_sentence_that_says_so() {
    let bench = Bench::new();
    let id = bench.test.submit(r#"{"prompt": "a fox", "width": 70}"#);
    work_off(&mut bench.worker(1));
    assert!(bench.error(&id).starts_with("width does not meet the constraints."));
}

#[test]
fn pictures_survive_a_full_disk() {
    let bench = Bench::new();
    let id = bench.submit(&"x".repeat(60_000), 1);
    let mut worker = bench.worker(1);
    let (queue, log) = (bench.test.queue.clone(), Rc::clone(&bench.log));
    queue.provoke("pragma max_page_count = 1");
    worker.pause = Box::new(move |pause| {
        log.pauses.borrow_mut().push(pause);
        if log.pauses.borrow().len() == 3 {
            queue.provoke("pragma max_page_count = 1000000");
        }
    });
    work_off(&mut worker);
    assert_eq!(*bench.log.pauses.borrow(), [100, 200, 400].map(Duration::from_millis));
    assert!(bench.completed(&id));
}

#[test]
fn pictures_of_a_job_that_has_expired_are_dropped() {
    let bench = Bench::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input(&"x".repeat(60_000), 1)) });
    let mut worker = bench.worker(1);
    bench.test.queue.provoke("pragma max_page_count = 1");
    let now = std::sync::Arc::clone(&bench.test.now);
    worker.pause = Box::new(move |pause| {
        let ms = i64::try_from(pause.as_millis()).unwrap();
        now.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    });
    work_off(&mut worker);
}

#[test]
fn a_required_engine_that_cannot_be_loaded_is_reported() {
    let test = TestQueue::new();
    let (sender, reported) = std::sync::mpsc::channel();
    let ready = move |outcome| sender.send(outcome).unwrap();
    let slot = Residency::new(|| {}).slot(&endpoint(), true);
    let model = ElsewhereModel(Err("no such model"));
    let thread = spawn(test.queue.clone(), assignment(slot), model, Stop::default(), ready).unwrap();
    assert_eq!(reported.recv().unwrap(), Err("no such model".to_owned()));
    thread.join().unwrap();
    assert_eq!(test.queue.workers(&endpoint()), WorkerCounts::default());
}
