//! Jobs that wait to begin: for memory, and for what is made beside the others.

use super::*;
use crate::domain::EndpointId;
use crate::engine::{BUSY_STAY, Grant};

/// Budgets are in units of an engine: each engine holds 10, and what is made for a job 10 more.
pub(super) fn placement(budget: u64) -> Placement {
    Placement { device: card(), needs: 10, budget: Some(budget) }
}

pub(super) fn outputs(bench: &Bench, prompt: &str, num_outputs: u32) -> JobId {
    let input = serde_json::json!({"prompt": prompt, "num_inference_steps": 2, "num_outputs": num_outputs});
    let policy = Policy { execution_timeout: 24 * LONG, ..Policy::default() };
    bench.test.submit_job(NewJob { policy, ..new_job(&input.to_string()) })
}

fn peak(bench: &Bench) -> u64 {
    bench.log.memory.peak.load(Ordering::SeqCst)
}

fn held(bench: &Bench) -> u64 {
    bench.log.memory.held.load(Ordering::SeqCst)
}

pub(super) fn make_slowly(bench: &Bench, is_slow: bool) {
    bench.log.is_making_slow.store(is_slow, Ordering::SeqCst);
}

#[test]
fn jobs_are_stepped_while_something_is_made_for_another() {
    let bench = Bench::new();
    make_slowly(&bench, true);
    let (made_for, next, other) =
        (bench.submit("make a fox", 1), bench.submit("a cat", 3), bench.submit("make a fox", 1));
    let mut worker = bench.worker(1);
    work_off(&mut worker);
    assert!(bench.completed(&next), "though it came later");
    assert_eq!(bench.test.status(&made_for), Some(JobStatus::InProgress));
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    make_slowly(&bench, false);
    work_off_with_errands(&mut worker);
    assert!(bench.completed(&made_for) && bench.completed(&other));
    assert_eq!(bench.log.made.get(), 1, "once for both");
}

#[test]
fn what_cannot_be_made_fails_its_job_alone() {
    let bench = Bench::new();
    let (beside, broken) = (bench.submit("a cat", 2), bench.submit("error in make", 1));
    let panicking = bench.submit("panic in make", 1);
    let refused = bench.submit("error in prepare", 1);
    work_off_with_errands(&mut bench.worker(1));
    assert!(bench.completed(&beside));
    assert_eq!(bench.error(&broken), "The model failed: it broke");
    assert_eq!(bench.error(&refused), "The model failed: it broke");
    assert_eq!(bench.error(&panicking), PANICKED);
    assert_eq!(bench.log.loaded.get(), 1, "the engine has nothing to do with it");
}

#[test]
fn a_job_can_be_cancelled_and_can_time_out_while_something_is_made_for_it() {
    let bench = Bench::new();
    make_slowly(&bench, true);
    let cancelled = bench.submit("make a fox", 1);
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.test.cancel(&cancelled);
    worker.tick();
    assert_eq!(bench.test.status(&cancelled), Some(JobStatus::Cancelled));
    work_off_with_errands(&mut worker);
    assert_eq!(
        (bench.log.made.get(), held(&bench)),
        (0, 10),
        "the thread has ended early, and nothing is kept"
    );

    let policy = Policy { execution_timeout: Duration::from_secs(5), ..Policy::default() };
    let overdue = bench.test.submit_job(NewJob { policy, ..new_job(&input("make a fox", 1)) });
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.test.pass(Duration::from_secs(5));
    work_off_with_errands(&mut worker);
    assert_eq!(bench.test.status(&overdue), Some(JobStatus::TimedOut));
}

#[test]
fn a_stop_puts_back_a_job_for_which_something_is_made() {
    let bench = Bench::new();
    make_slowly(&bench, true);
    let ids = [bench.submit("make a fox", 1), bench.submit("make a cat", 1)];
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    bench.stop.stop(LONG);
    while worker.tick() != TickOutcome::Stopped {
        thread::park_timeout(LOOK);
    }
    assert!(ids.iter().all(|id| bench.test.status(id) == Some(JobStatus::InQueue)));
    assert_eq!(held(&bench), 10, "the worker has waited for the thread");
}

#[test]
fn what_is_being_made_counts_although_its_engine_has_panicked() {
    let bench = Bench::new();
    make_slowly(&bench, true);
    let made_for = bench.submit("make a fox", 1);
    let mut worker = bench.try_worker(bench.assignment(), 1, placement(25)).unwrap();
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    let panicking = bench.submit("panic in begin", 1);
    worker.tick();
    assert_eq!(bench.error(&panicking), PANICKED);
    let other = bench.residency.slot(&EndpointId::new("other"), false);
    let now = bench.test.queue.now();
    assert_ne!(other.request(&Placement { needs: 20, ..placement(25) }, now), Grant::Now, "10 are in use");
    other.withdraw();
    make_slowly(&bench, false);
    work_off_with_errands(&mut worker);
    assert!(bench.completed(&made_for), "with a new engine");
    assert_eq!(bench.log.loaded.get(), 2);
}

#[test]
fn at_most_four_jobs_wait_to_begin() {
    let bench = Bench::new();
    make_slowly(&bench, true);
    let ids: Vec<_> = (0..6).map(|number| bench.submit(&format!("make {number}"), 1)).collect();
    let mut worker = bench.worker(1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    let taken = |id: &&JobId| bench.test.status(id) == Some(JobStatus::InProgress);
    assert_eq!(ids.iter().filter(taken).count(), 4);
    make_slowly(&bench, false);
    work_off_with_errands(&mut worker);
    assert!(ids.iter().all(|id| bench.completed(id)));
}

#[test]
fn unused_copies_leave_first_and_the_least_recently_used_before_others() {
    let bench = Bench::new();
    let mut worker = bench.try_worker(bench.assignment(), 1, placement(30)).unwrap();
    let draw = |worker: &mut Worker<ScriptedModel>, prompt: &str| {
        let id = bench.submit(prompt, 1);
        work_off_with_errands(worker);
        assert!(bench.completed(&id), "{prompt}");
        bench.log.made.get()
    };
    assert_eq!(draw(&mut worker, "make a fox"), 1);
    assert_eq!(draw(&mut worker, "make a cat"), 2);
    assert_eq!(draw(&mut worker, "make a fox"), 2, "both are kept");
    assert_eq!(draw(&mut worker, "make an owl"), 3, "one has left");
    assert_eq!(draw(&mut worker, "make a cat"), 3, "it was the first that was made");
    assert_eq!((peak(&bench), bench.log.loaded.get()), (30, 1));
}

#[test]
fn another_model_is_loaded_in_place_of_unused_copies() {
    let bench = Bench::new();
    let mut first = bench.try_worker(bench.assignment(), 1, placement(25)).unwrap();
    bench.submit("make a fox", 1);
    work_off_with_errands(&mut first);
    let other = bench.residency.slot(&EndpointId::new("other"), false);
    let ask = || other.request(&placement(25), bench.test.queue.now());
    assert_eq!(ask(), Grant::Later);
    first.tick();
    assert_eq!((ask(), held(&bench)), (Grant::Now, 10), "the copy has left, and the engine has stayed");
    assert_eq!(bench.log.loaded.get(), 1);
}

#[test]
fn a_job_too_large_beside_another_model_waits_until_that_has_left() {
    let bench = Bench::new();
    let mut worker = bench.try_worker(bench.assignment(), 2, placement(40)).unwrap();
    let other = bench.residency.slot(&EndpointId::new("other"), false);
    assert_eq!(other.request(&placement(40), bench.test.queue.now()), Grant::Now);
    let running = bench.submit("a cat", 3);
    worker.tick();
    let (large, behind) = (outputs(&bench, "a fox", 4), bench.submit("a dog", 1));
    worker.tick();
    assert!(other.must_unload() || bench.test.status(&large) == Some(JobStatus::InProgress));
    assert_eq!(bench.test.status(&behind), Some(JobStatus::InQueue), "nobody overtakes it");
    work_off(&mut worker);
    assert!(bench.completed(&running), "jobs that run go on");
    bench.test.pass(BUSY_STAY);
    worker.tick();
    assert!(other.must_unload());
    other.unloaded(0);
    work_off(&mut worker);
    assert!(bench.completed(&large) && bench.completed(&behind));
    assert_eq!(peak(&bench), 40);
}

#[test]
fn a_job_that_waits_for_memory_can_be_cancelled_and_the_next_one_begins() {
    let bench = Bench::new();
    let mut worker = bench.try_worker(bench.assignment(), 1, placement(40)).unwrap();
    let other = bench.residency.slot(&EndpointId::new("other"), false);
    assert_eq!(other.request(&placement(40), bench.test.queue.now()), Grant::Now);
    let (large, next) = (outputs(&bench, "a fox", 4), bench.submit("a dog", 1));
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    assert_eq!(
        bench.test.queue.workers(&endpoint()),
        WorkerCounts { throttled: 1, ..WorkerCounts::default() }
    );
    bench.test.cancel(&large);
    work_off(&mut worker);
    assert_eq!(bench.test.status(&large), Some(JobStatus::Cancelled));
    assert!(bench.completed(&next));
}

#[test]
fn a_job_goes_back_into_the_queue_if_its_engine_has_to_leave_before_there_is_memory() {
    let bench = Bench::new();
    let mut worker = bench.try_worker(bench.assignment(), 2, placement(40)).unwrap();
    let [holder, first] = ["holder", "first"].map(|name| bench.residency.slot(&EndpointId::new(name), false));
    let ask = || first.request(&Placement { needs: 30, ..placement(40) }, bench.test.queue.now());
    assert_eq!(holder.request(&placement(40), bench.test.queue.now()), Grant::Now);
    let running = bench.submit("a cat", 3);
    worker.tick();
    assert_eq!(ask(), Grant::Later, "20 are free, and both engines have jobs");
    let large = outputs(&bench, "a fox", 4);
    work_off(&mut worker);
    assert!(bench.completed(&running));
    assert_eq!(worker.tick(), TickOutcome::Waiting, "another was first in line");
    assert_eq!(ask(), Grant::Later);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    assert_eq!(ask(), Grant::Now, "this engine had no job that could go on");
    assert_eq!(bench.test.status(&large), Some(JobStatus::InQueue));
    drop((holder, first));
    work_off(&mut worker);
    assert!(bench.completed(&large));
}

#[test]
fn two_workers_never_hold_more_than_the_budget_together() {
    for seed in 0..40 {
        let bench = Bench::new();
        let mut random = crate::diffusion::BatchNoise::consecutive(crate::domain::NoiseSource::Cpu, seed, 1);
        let mut below = |limit: u32| {
            let value = random.randn((1, 1, 1))[[0, 0, 0, 0]].abs() * 1000.0;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
            let value = value as u32;
            value % limit
        };
        let budget = 40 + 5 * u64::from(below(4));
        let assignments =
            [(); 2].map(|()| Assignment { first_load: FirstLoad::OnDemand, ..bench.assignment() });
        let mut workers =
            assignments.map(|assignment| bench.try_worker(assignment, 2, placement(budget)).unwrap());
        let ids: Vec<_> = (0..20)
            .map(|_| match below(3) {
                0 => outputs(&bench, &format!("make {}", below(3)), 1 + below(2)),
                _ => outputs(&bench, "a fox", 1 + below(4)),
            })
            .collect();
        for _ in 0..2000 {
            let outcome = workers[below(2) as usize].tick();
            if outcome == TickOutcome::Waiting {
                bench.test.pass(Duration::from_secs(5));
                thread::sleep(Duration::from_micros(200));
            }
            let peak = peak(&bench);
            assert!(peak <= budget, "with seed {seed}: {peak} of {budget}");
            if ids.iter().all(|id| bench.completed(id)) {
                break;
            }
        }
        let states: Vec<_> = ids.iter().map(|id| bench.test.status(id)).collect();
        assert!(states.iter().all(|state| *state == Some(JobStatus::Completed)), "seed {seed}: {states:?}");
    }
}
