//! Jobs that go through the worker as they should.

use super::*;

#[test]
fn a_job_is_drawn_step_by_step_and_its_progress_published() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 4);
    let mut worker = bench.worker(1);
    worker.tick();
    assert_eq!(
        bench.test.queue.progress(&id),
        Some(Progress { step: 1, steps: 4, eta: Some(Duration::ZERO) })
    );
    bench.test.pass(Duration::from_secs(2));
    worker.tick();
    let eta = Some(Duration::from_secs(2));
    assert_eq!(bench.test.queue.progress(&id), Some(Progress { step: 2, steps: 4, eta }));
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 4);
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.gpu.as_deref()), (JobStatus::Completed, Some("24")));
    let png = bench.test.run(bench.test.queue.image(&endpoint(), &id, 0)).unwrap();
    assert_eq!(png.as_deref(), Some(&b"a fox"[..]));
}

#[test]
fn what_the_engine_warns_of_is_kept_with_the_job() {
    let bench = Bench::new();
    let [quiet, warned] = ["a fox", "warn"].map(|prompt| bench.submit(prompt, 1));
    work_off(&mut bench.worker(1));
    assert!(bench.test.find(&quiet).unwrap().warnings.is_empty());
    assert_eq!(bench.test.find(&warned).unwrap().warnings, ["it is a script"]);
}

#[test]
fn a_job_that_is_cut_short_completes_with_what_is_drawn() {
    let bench = Bench::new();
    let [id, other] = [9, 3].map(|steps| bench.submit("a fox", steps));
    let waiting = bench.submit("a fox", 1);
    let mut worker = bench.worker(2);
    worker.tick();
    let queue = &bench.test.queue;
    assert!(queue.cut_short(&id));
    // One that waits is not running yet.
    assert!(!queue.cut_short(&waiting));
    worker.tick();
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.images.len()), (JobStatus::Completed, 1));
    let png = bench.test.run(queue.image(&endpoint(), &id, 0)).unwrap();
    assert_eq!(png.as_deref(), Some(&b"a fox after 2 steps"[..]));
    assert!(!queue.cut_short(&id));
    work_off(&mut worker);
    assert!(bench.completed(&other) && bench.completed(&waiting));
    assert_eq!(bench.log.steps.get(), 3);
}

#[test]
fn jobs_are_stepped_together_up_to_the_engines_capacity() {
    let bench = Bench::new();
    let ids = [3, 5, 3].map(|steps| bench.submit("a fox", steps));
    work_off(&mut bench.worker(2));
    assert!(ids.iter().all(|id| bench.completed(id)));
    // The first two together; then the third takes the place of the first: 3 + 3.
    assert_eq!(bench.log.steps.get(), 6);
}

#[test]
fn workers_are_counted_by_state() {
    let bench = Bench::new();
    let counts = || bench.test.queue.workers(&endpoint());
    assert_eq!(counts(), WorkerCounts::default());
    let mut worker = bench.worker(1);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    bench.submit("a fox", 2);
    worker.tick();
    assert_eq!(counts(), WorkerCounts { running: 1, ready: 1, ..Default::default() });
    work_off(&mut worker);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    drop(worker);
    assert_eq!(counts(), WorkerCounts::default());
}

#[test]
fn a_cancelled_job_stops_at_the_next_step() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 50);
    let mut worker = bench.worker(1);
    worker.tick();
    bench.test.cancel(&id);
    work_off(&mut worker);
    assert_eq!(bench.test.status(&id), Some(JobStatus::Cancelled));
    assert_eq!(bench.log.steps.get(), 2);
}

#[test]
fn a_job_that_runs_too_long_times_out() {
    let bench = Bench::new();
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let id = bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.tick();
    bench.test.pass(Duration::from_secs(5));
    work_off(&mut worker);
    let job = bench.test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::TimedOut);
    assert!(job.error.unwrap().contains("5000 ms"));
}

#[test]
fn a_job_that_expires_while_it_runs_stops() {
    let bench = Bench::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.tick();
    bench.test.pass(Duration::from_secs(10));
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 2);
    assert_eq!(bench.test.queue.sweep().unwrap().jobs, 1);
}

#[test]
fn during_the_grace_a_running_job_is_finished_and_no_other_begins() {
    let bench = Bench::new();
    let (running, queued) = (bench.submit("a fox", 5), bench.submit("a fox", 5));
    let mut worker = bench.worker(1);
    worker.tick();
    bench.stop.stop(LONG);
    work_off(&mut worker);
    assert_eq!(worker.tick(), TickOutcome::Stopped);
    assert!(bench.completed(&running));
    assert_eq!(bench.test.status(&queued), Some(JobStatus::InQueue));
}

#[test]
fn after_the_grace_a_job_goes_back_into_the_queue() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 5);
    let mut worker = bench.worker(1);
    worker.tick();
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.tick(), TickOutcome::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}

#[test]
fn a_worker_on_its_own_thread_draws_jobs_and_stops_when_asked() {
    let test = TestQueue::new();
    let stop = Stop::default();
    let slot = Residency::new(|| {}).slot(&endpoint(), true);
    let thread =
        spawn(test.queue.clone(), assignment(slot), ElsewhereModel(Ok(())), stop.clone(), drop).unwrap();
    for _ in 0..3 {
        let id = test.submit(&input("a fox", 3));
        let job = test.run(test.queue.wait(&endpoint(), &id, LONG)).unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Completed);
    }
    stop.stop(LONG);
    test.queue.wake_workers();
    thread.join().unwrap();
}
