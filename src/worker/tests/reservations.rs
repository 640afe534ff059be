//! What is reserved for a job from the time when something is made for it until it begins.

use super::waiting::{make_slowly, outputs, placement};
use super::*;
use crate::domain::EndpointId;
use crate::engine::Grant;

#[test]
fn an_engine_is_loaded_again_once_what_is_in_its_way_has_been_made() {
    let bench = Bench::new();
    let assignment = Assignment { first_load: FirstLoad::OnDemand, ..bench.assignment() };
    let mut worker = bench.try_worker(assignment, 1, placement(15)).unwrap();
    worker.engine.set_making(10);
    let id = bench.submit("a fox", 1);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    assert_eq!(bench.test.status(&id), Some(JobStatus::InQueue));
    worker.engine.set_making(0);
    work_off(&mut worker);
    assert!(bench.completed(&id));
}

#[test]
fn a_job_begins_in_the_memory_that_was_reserved_before_its_copy_was_made() {
    let (is_watched, least) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(u64::MAX)));
    let residency = Arc::new(std::sync::OnceLock::<Residency>::new());
    let woken = {
        let (is_watched, least, residency) =
            (Arc::clone(&is_watched), Arc::clone(&least), Arc::clone(&residency));
        move || {
            if let Some(residency) = residency.get().filter(|_| is_watched.load(Ordering::SeqCst)) {
                least.fetch_min(residency.held(&card()), Ordering::SeqCst);
            }
        }
    };
    let bench = Bench { residency: Residency::new(woken), ..Bench::new() };
    assert!(residency.set(bench.residency.clone()).is_ok());
    make_slowly(&bench, true);
    let mut worker = bench.try_worker(bench.assignment(), 1, placement(40)).unwrap();
    let id = outputs(&bench, "make a fox", 3);
    assert_eq!(worker.tick(), TickOutcome::Waiting);
    assert_eq!(bench.residency.held(&card()), 40);
    is_watched.store(true, Ordering::SeqCst);
    make_slowly(&bench, false);
    while worker.tick() != TickOutcome::Worked {
        thread::park_timeout(LOOK);
    }
    is_watched.store(false, Ordering::SeqCst);
    assert_eq!(bench.residency.held(&card()), 40);
    assert!(least.load(Ordering::SeqCst) >= 40, "{least:?} were held meanwhile");
    work_off(&mut worker);
    assert!(bench.completed(&id));
}

#[test]
fn a_waiting_job_that_can_never_begin_is_refused_although_there_are_spares() {
    let bench = Bench::new();
    let mut worker = bench.try_worker(bench.assignment(), 1, placement(50)).unwrap();
    for prompt in ["make a fox", "make a cat"] {
        let id = bench.submit(prompt, 1);
        work_off_with_errands(&mut worker);
        assert!(bench.completed(&id));
    }
    let other = bench.residency.slot(&EndpointId::new("other"), false);
    let needs = Placement { needs: 20, ..placement(50) };
    assert_eq!(other.request(&needs, bench.test.queue.now()), Grant::Now);
    let (large, next) = (outputs(&bench, "make a fox", 4), bench.submit("a dog", 1));
    for _ in 0..2 {
        assert_eq!(worker.tick(), TickOutcome::Waiting, "20 are missing, and there is one spare of 10");
    }
    bench.log.grown.set(5);
    work_off(&mut worker);
    assert_eq!(
        bench.error(&large),
        "This needs about 55 B of memory, and models may use 50 B: ask for fewer outputs, or let the server draw with \
         a larger --memory-budget or on another --device."
    );
    drop(other);
    work_off(&mut worker);
    assert!(bench.completed(&next));
}

#[test]
fn what_has_been_made_for_one_job_changes_nothing_for_those_that_need_something_else() {
    let bench = Bench::new();
    let ids = ["make a fox", "make a cat", "make a fox"].map(|prompt| bench.submit(prompt, 1));
    work_off_with_errands(&mut bench.worker(1));
    assert!(ids.iter().all(|id| bench.completed(id)));
    assert_eq!(bench.log.made.get(), 2);
    assert_eq!(bench.log.prepared.get(), 4, "only the other fox was looked at again");
}

#[test]
fn a_job_that_needs_what_was_made_for_another_among_other_things_is_looked_at_again() {
    let bench = Bench::new();
    let ids = ["make a fox", "make a fox and make a cat"].map(|prompt| bench.submit(prompt, 1));
    work_off_with_errands(&mut bench.worker(1));
    assert!(ids.iter().all(|id| bench.completed(id)));
    assert_eq!(bench.log.prepared.get(), 3);
}
