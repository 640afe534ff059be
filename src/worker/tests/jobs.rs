//! Jobs on their way through the worker, as it should be.

use super::*;

#[test]
fn a_job_is_drawn_step_by_step_and_its_progress_told() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 4);
    let mut worker = bench.worker(1);
    worker.run_once();
    assert_eq!(
        bench.test.queue.progress(&id),
        Some(Progress { step: 1, steps: 4, eta: Some(Duration::ZERO) })
    );
    bench.test.pass(Duration::from_secs(2));
    worker.run_once();
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
fn jobs_are_stepped_together_up_to_the_engines_capacity() {
    let bench = Bench::new();
    let ids = [3, 5, 3].map(|steps| bench.submit("a fox", steps));
    work_off(&mut bench.worker(2));
    assert!(ids.iter().all(|id| bench.completed(id)));
    // The first two side by side; the third takes the first one's place: 3 + 3.
    assert_eq!(bench.log.steps.get(), 6);
}

#[test]
fn workers_are_counted_by_what_they_do() {
    let bench = Bench::new();
    let counts = || bench.test.queue.workers(&endpoint());
    assert_eq!(counts(), WorkerCounts::default());
    let mut worker = bench.worker(1);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    bench.submit("a fox", 2);
    worker.run_once();
    assert_eq!(counts(), WorkerCounts { running: 1, ready: 1, ..Default::default() });
    work_off(&mut worker);
    assert_eq!(counts(), WorkerCounts { idle: 1, ready: 1, ..Default::default() });
    drop(worker);
    assert_eq!(counts(), WorkerCounts::default());
}

#[test]
fn a_cancelled_job_is_let_go_of_at_the_next_step() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 50);
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.cancel(&id);
    work_off(&mut worker);
    assert_eq!(bench.test.status(&id), Some(JobStatus::Cancelled));
    assert_eq!(bench.log.steps.get(), 2);
}

#[test]
fn a_job_that_works_too_long_times_out() {
    let bench = Bench::new();
    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let id = bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.pass(Duration::from_secs(5));
    work_off(&mut worker);
    let job = bench.test.find(&id).unwrap();
    assert_eq!(job.status, JobStatus::TimedOut);
    assert!(job.error.unwrap().contains("5000 ms"));
}

#[test]
fn a_job_forgotten_while_it_runs_is_let_go_of() {
    let bench = Bench::new();
    let policy = Policy { ttl: Duration::from_secs(10), ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input("a fox", 50)) });
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.test.pass(Duration::from_secs(10));
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 2);
    assert_eq!(bench.test.queue.sweep().unwrap().jobs, 1);
}

#[test]
fn within_the_grace_a_job_is_finished_and_no_other_begun() {
    let bench = Bench::new();
    let (running, queued) = (bench.submit("a fox", 5), bench.submit("a fox", 5));
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.stop.stop(LONG);
    work_off(&mut worker);
    assert_eq!(worker.run_once(), Turn::Stopped);
    assert!(bench.completed(&running));
    assert_eq!(bench.test.status(&queued), Some(JobStatus::InQueue));
}

#[test]
fn after_the_grace_a_job_goes_back_into_the_queue() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 5);
    let mut worker = bench.worker(1);
    worker.run_once();
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.run_once(), Turn::Stopped);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
}

#[test]
fn a_thread_works_when_there_is_work_and_stops_when_asked() {
    let test = TestQueue::new();
    let stop = Stop::default();
    let seat = Residency::new(|| {}).seat(&endpoint(), true);
    let thread =
        spawn(test.queue.clone(), assignment(seat), ElsewhereModel(Ok(())), stop.clone(), drop).unwrap();
    for _ in 0..3 {
        let id = test.submit(&input("a fox", 3));
        let job = test.run(test.queue.wait(&endpoint(), &id, LONG)).unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Completed);
    }
    stop.stop(LONG);
    test.queue.wake_workers();
    thread.join().unwrap();
}
