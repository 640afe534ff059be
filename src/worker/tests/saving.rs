//! Jobs that are saved, and go on in a later attempt.

use super::*;

const EVERY: Duration = Duration::from_secs(10);

/// A worker that saves its jobs.
fn saving(bench: &Bench, capacity: usize) -> Worker<ScriptedModel> {
    let assignment = Assignment { save_every: Some(EVERY), ..bench.assignment() };
    let placement = Placement { device: card(), needs: 10, budget: None };
    bench.try_worker(assignment, capacity, placement).unwrap()
}

/// A tick, until the disk has what it saved.
fn tick(worker: &mut Worker<ScriptedModel>) {
    worker.tick();
    while worker.jobs.active.iter().any(|active| active.job.is_saving()) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The process dies with its jobs in hand, and starts again.
fn crash(bench: &mut Bench, mut worker: Worker<ScriptedModel>) {
    worker.jobs.active.drain(..).for_each(|active| active.job.abandon());
    drop(worker);
    bench.log.steps.set(0);
    bench.test.reopen();
}

#[test]
fn a_job_goes_on_after_a_crash_where_it_was_last_saved() {
    let mut bench = Bench::new();
    let id = bench.submit("a fox", 20);
    let mut worker = saving(&bench, 1);
    for _ in 0..9 {
        bench.test.pass(Duration::from_secs(3));
        tick(&mut worker);
    }
    // It began after 3 s, and was saved after 15 s, with step 5, and after 27 s, with step 9.
    worker.tick();
    assert_eq!(worker.progress_of(&id), Some((10, 20)));
    crash(&mut bench, worker);

    let mut worker = saving(&bench, 1);
    worker.tick();
    assert_eq!(worker.progress_of(&id), Some((10, 20)));
    bench.test.pass(Duration::from_secs(4));
    worker.tick();
    let progress = bench.test.queue.progress(&id).unwrap();
    let eta = Some(Duration::from_secs(4) * 9 / 2);
    assert_eq!(
        progress,
        Progress { step: 11, steps: 20, eta },
        "the steps of this attempt say how long it takes"
    );
    work_off(&mut worker);
    assert_eq!(bench.log.steps.get(), 11);
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.attempt), (JobStatus::Completed, 2));
}

#[test]
fn a_job_that_is_put_back_at_a_stop_goes_on_where_it_was() {
    let bench = Bench::new();
    let ids = [bench.submit("a fox", 9), bench.submit("a hen", 7)];
    let mut worker = saving(&bench, 2);
    (0..4).for_each(|_| tick(&mut worker));
    bench.stop.stop(Duration::ZERO);
    assert_eq!(worker.tick(), TickOutcome::Stopped);
    bench.log.steps.set(0);
    let bench = Bench { stop: Stop::default(), ..bench };
    let mut worker = saving(&bench, 2);
    work_off(&mut worker);
    assert!(ids.iter().all(|id| bench.completed(id)));
    assert_eq!(bench.log.steps.get(), 5, "of 9");
}

#[test]
fn a_job_is_saved_as_soon_as_a_stop_is_asked_for() {
    let mut bench = Bench::new();
    let id = bench.submit("a fox", 9);
    let mut worker = saving(&bench, 1);
    worker.tick();
    bench.stop.stop(LONG);
    worker.tick();
    worker.tick();
    assert_eq!(worker.progress_of(&id), Some((3, 9)));
    // Killed before the grace was over.
    crash(&mut bench, worker);
    bench.stop = Stop::default();
    work_off(&mut saving(&bench, 1));
    assert!(bench.completed(&id));
    assert_eq!(bench.log.steps.get(), 7, "it was saved after the second of nine steps");
}

#[test]
fn a_short_job_is_never_saved() {
    let mut bench = Bench::new();
    let id = bench.submit("a fox", 9);
    let mut worker = saving(&bench, 1);
    for _ in 0..5 {
        bench.test.pass(Duration::from_secs(1));
        worker.tick();
    }
    crash(&mut bench, worker);
    work_off(&mut saving(&bench, 1));
    assert!(bench.completed(&id));
    assert_eq!(bench.log.steps.get(), 9);
}

#[test]
fn where_jobs_are_not_saved_they_begin_anew() {
    let mut bench = Bench::new();
    bench.submit("a fox", 9);
    let mut worker = bench.worker(1);
    for _ in 0..5 {
        bench.test.pass(EVERY);
        worker.tick();
    }
    crash(&mut bench, worker);
    work_off(&mut bench.worker(1));
    assert_eq!(bench.log.steps.get(), 9);
}

#[test]
fn a_saved_state_of_no_use_costs_nothing_but_the_steps() {
    for spoil in [
        "update contents set bytes = x'00' where id in (select state from saved_states)",
        "update contents set bytes = zeroblob(100000) where id in (select state from saved_states)",
        "delete from contents where id in (select state from saved_states)",
        "update saved_states set state = 12345",
    ] {
        let mut bench = Bench::new();
        let id = bench.submit("a fox", 6);
        let mut worker = saving(&bench, 1);
        for _ in 0..4 {
            bench.test.pass(EVERY);
            tick(&mut worker);
        }
        crash(&mut bench, worker);
        bench.test.queue.provoke(spoil);
        work_off(&mut saving(&bench, 1));
        assert!(bench.completed(&id), "{spoil}");
        assert_eq!(bench.log.steps.get(), 6, "{spoil}");
    }
}

#[test]
fn an_engine_that_cannot_go_on_begins_anew() {
    let mut bench = Bench::new();
    let id = bench.submit("error in resume", 6);
    let mut worker = saving(&bench, 1);
    for _ in 0..4 {
        bench.test.pass(EVERY);
        worker.tick();
    }
    crash(&mut bench, worker);
    work_off(&mut saving(&bench, 1));
    assert!(bench.completed(&id));
    assert_eq!(bench.log.steps.get(), 6);
}

#[test]
fn a_full_disk_fails_no_save_and_no_job() {
    let bench = Bench::new();
    let id = bench.submit("a fox", 6);
    let mut worker = saving(&bench, 1);
    bench.test.pass(EVERY);
    worker.tick();
    bench.test.queue.provoke("pragma max_page_count = 1");
    for _ in 0..3 {
        bench.test.pass(EVERY);
        assert_eq!(worker.tick(), TickOutcome::Worked);
    }
    bench.test.queue.provoke("pragma max_page_count = 1000000");
    work_off(&mut worker);
    assert!(bench.completed(&id));
}

#[test]
fn a_job_that_crashes_the_process_is_not_saved_for_ever() {
    let mut bench = Bench::new();
    let id = bench.submit("a fox", 100);
    for _ in 0..3 {
        let mut worker = saving(&bench, 1);
        for _ in 0..4 {
            bench.test.pass(EVERY);
            worker.tick();
        }
        crash(&mut bench, worker);
    }
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 3));
}

#[test]
fn a_save_that_panics_counts_as_a_crash_and_costs_others_nothing() {
    let bench = Bench::new();
    let (id, other) = (bench.submit("panic in save", 100), bench.submit("a fox", 12));
    let mut worker = saving(&bench, 2);
    for _ in 0..40 {
        bench.test.pass(EVERY);
        worker.tick();
    }
    let job = bench.test.find(&id).unwrap();
    assert_eq!((job.status, job.attempt), (JobStatus::Failed, 3));
    let error = "The engine stopped unexpectedly 3 times while it worked on this job; it was given up.";
    assert_eq!(job.error.as_deref(), Some(error));
    assert!(bench.completed(&other));
}
