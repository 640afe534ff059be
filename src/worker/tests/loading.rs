//! Several models, and too little memory for all of them.

use super::*;
use crate::engine::BUSY_STAY;

/// Endpoints with one worker each. Every model needs 10 units of memory.
struct Models {
    bench: Bench,
    budget: u64,
}

impl Models {
    fn within(budget: u64) -> Self {
        Self { bench: Bench::new(), budget }
    }

    fn worker(&self, name: &str, first_load: FirstLoad) -> Worker<ScriptedModel> {
        self.worker_with(name, first_load, None)
    }

    fn worker_with(
        &self,
        name: &str,
        first_load: FirstLoad,
        unload_after: Option<Duration>,
    ) -> Worker<ScriptedModel> {
        let endpoint = EndpointId::new(name);
        let slot = self.bench.residency.slot(&endpoint, first_load != FirstLoad::OnDemand);
        let assignment = Assignment { endpoint, first_load, unload_after, ..assignment(slot) };
        let placement = Placement { device: card(), needs: 10, budget: Some(self.budget) };
        self.bench.try_worker(assignment, 1, placement).unwrap()
    }

    fn submit(&self, name: &str, steps: u32) -> JobId {
        let endpoint = EndpointId::new(name);
        self.bench.test.submit_job(NewJob { endpoint, ..new_job(&input("a fox", steps)) })
    }

    fn status(&self, name: &str, id: &JobId) -> JobStatus {
        let queue = &self.bench.test.queue;
        self.bench.test.run(queue.find(&EndpointId::new(name), id)).unwrap().unwrap().status
    }

    fn counts(&self, name: &str) -> WorkerCounts {
        self.bench.test.queue.workers(&EndpointId::new(name))
    }

    fn loaded(&self) -> u32 {
        self.bench.log.loaded.get()
    }
}

#[test]
fn an_engine_is_loaded_for_the_first_job_and_stays_loaded() {
    let models = Models::within(10);
    let mut worker = models.worker("a", FirstLoad::OnDemand);
    assert_eq!(worker.tick(), TickOutcome::Idle);
    assert_eq!((models.loaded(), models.counts("a").idle), (0, 1));
    for _ in 0..2 {
        let id = models.submit("a", 2);
        work_off(&mut worker);
        assert_eq!(models.status("a", &id), JobStatus::Completed);
        assert_eq!(models.loaded(), 1);
    }
}

#[test]
fn an_engine_that_is_asked_to_unload_finishes_its_jobs_first_and_is_loaded_for_the_next() {
    let models = Models::within(10);
    let mut worker = models.worker("a", FirstLoad::OnDemand);
    let unload = || models.bench.test.queue.unload(&EndpointId::new("a"));
    // Nothing is loaded yet, so nothing is remembered.
    unload();
    let id = models.submit("a", 3);
    worker.tick();
    unload();
    work_off(&mut worker);
    assert_eq!((models.status("a", &id), models.loaded()), (JobStatus::Completed, 1));
    assert!(!worker.engine.is_loaded());
    let id = models.submit("a", 1);
    work_off(&mut worker);
    assert_eq!((models.status("a", &id), models.loaded()), (JobStatus::Completed, 2));
    assert_eq!(worker.tick(), TickOutcome::Idle);
    assert!(worker.engine.is_loaded());
}

#[test]
fn engines_that_fit_are_loaded_at_the_start_and_the_others_on_demand() {
    let models = Models::within(20);
    let workers = ["a", "b", "c"].map(|name| models.worker(name, FirstLoad::IfItFits));
    assert_eq!(workers.map(|worker| worker.engine.is_loaded()), [true, true, false]);
    assert_eq!(models.loaded(), 2);
}

#[test]
fn the_engine_unused_for_longest_is_unloaded_for_another() {
    let models = Models::within(20);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| models.worker(name, FirstLoad::IfItFits));
    for (name, worker) in [("b", &mut b), ("a", &mut a)] {
        models.bench.test.pass(Duration::from_secs(1));
        models.submit(name, 1);
        work_off(worker);
    }
    let id = models.submit("c", 1);
    assert_eq!(c.tick(), TickOutcome::Waiting);
    assert_eq!(models.counts("c"), WorkerCounts { throttled: 1, ..WorkerCounts::default() });
    assert_eq!(models.status("c", &id), JobStatus::InQueue, "a worker that cannot draw claims no job");
    a.tick();
    b.tick();
    assert!(a.engine.is_loaded() && !b.engine.is_loaded());
    work_off(&mut c);
    assert_eq!(models.status("c", &id), JobStatus::Completed);
    assert!(a.engine.is_loaded());
}

#[test]
fn an_engine_with_a_job_in_hand_is_not_unloaded() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let jobs = [3, 1].map(|steps| models.submit("a", steps));
    a.tick();
    let waiting = models.submit("b", 1);
    models.bench.test.pass(BUSY_STAY / 2);
    assert_eq!(b.tick(), TickOutcome::Waiting);
    work_off(&mut a);
    assert!(
        jobs.iter().all(|id| models.status("a", id) == JobStatus::Completed),
        "b has not waited long enough"
    );
    assert!(a.engine.is_loaded());
    assert_eq!(b.tick(), TickOutcome::Waiting);
    a.tick();
    assert!(!a.engine.is_loaded(), "once idle it is unloaded");
    work_off(&mut b);
    assert_eq!(models.status("b", &waiting), JobStatus::Completed);
}

#[test]
fn an_engine_that_always_has_jobs_is_unloaded_after_half_a_minute_and_comes_back() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let [running, next] = [3, 1].map(|steps| models.submit("a", steps));
    a.tick();
    models.bench.test.pass(10 * BUSY_STAY);
    let waiting = models.submit("b", 1);
    assert_eq!(b.tick(), TickOutcome::Waiting);
    models.bench.test.pass(BUSY_STAY);
    assert!(!a.engine.must_unload(), "it stays while the other waits");
    assert_eq!(b.tick(), TickOutcome::Waiting);
    work_off(&mut a);
    assert_eq!(models.status("a", &running), JobStatus::Completed);
    assert_eq!(models.status("a", &next), JobStatus::InQueue);
    assert!(!a.engine.is_loaded());
    work_off(&mut b);
    assert_eq!(models.status("b", &waiting), JobStatus::Completed);
    assert_eq!(a.tick(), TickOutcome::Waiting);
    b.tick();
    work_off(&mut a);
    assert_eq!(models.status("a", &next), JobStatus::Completed);
}

#[test]
fn an_engine_that_was_just_loaded_draws_its_job_before_it_is_unloaded() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::OnDemand));
    let ids = ["a", "b"].map(|name| models.submit(name, 2));
    a.tick();
    assert_eq!(b.tick(), TickOutcome::Waiting);
    assert_eq!(a.tick(), TickOutcome::Worked);
    for _ in 0..4 {
        a.tick();
        b.tick();
    }
    assert_eq!(
        ["a", "b"].map(|name| models.status(name, &ids[usize::from(name == "b")])),
        [JobStatus::Completed; 2]
    );
    assert_eq!(models.loaded(), 2);
}

#[test]
fn a_worker_that_needs_no_memory_any_more_lets_the_other_engine_stay() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let id = models.submit("b", 1);
    assert_eq!(b.tick(), TickOutcome::Waiting);
    models.bench.test.run(models.bench.test.queue.cancel(&EndpointId::new("b"), &id)).unwrap();
    assert_eq!(b.tick(), TickOutcome::Idle);
    assert_eq!(a.tick(), TickOutcome::Idle);
    assert!(a.engine.is_loaded());
}

#[test]
fn a_second_engine_of_an_endpoint_takes_free_memory_only() {
    let models = Models::within(20);
    let [mut a, b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let mut second = models.worker("a", FirstLoad::OnDemand);
    models.submit("a", 5);
    models.submit("a", 5);
    a.tick();
    models.bench.test.pass(BUSY_STAY);
    assert_eq!(second.tick(), TickOutcome::Waiting);
    assert!(!a.engine.must_unload() && !b.engine.must_unload());
    drop(b);
    second.tick();
    assert!(second.engine.is_loaded());
}

#[test]
fn an_idle_engine_is_unloaded_after_unload_after() {
    let models = Models::within(10);
    let mut worker = models.worker_with("a", FirstLoad::IfItFits, Some(Duration::from_mins(5)));
    models.bench.test.pass(Duration::from_mins(4));
    let id = models.submit("a", 1);
    work_off(&mut worker);
    assert_eq!(models.status("a", &id), JobStatus::Completed);
    models.bench.test.pass(Duration::from_mins(4));
    assert_eq!(worker.patience(), Duration::from_mins(1));
    worker.tick();
    assert!(worker.engine.is_loaded());
    models.bench.test.pass(Duration::from_mins(1));
    worker.tick();
    assert!(!worker.engine.is_loaded());
    models.submit("a", 1);
    work_off(&mut worker);
    assert_eq!(models.loaded(), 2);
}

#[test]
fn a_model_that_cannot_be_loaded_fails_its_own_jobs_only() {
    let models = Models::within(20);
    let mut good = models.worker("good", FirstLoad::IfItFits);
    *models.bench.log.refusal.borrow_mut() = Some(EngineError::Other("its unet is damaged".to_owned()));
    let mut bad = models.worker("bad", FirstLoad::IfItFits);
    let error = |id: &JobId| {
        let queue = &models.bench.test.queue;
        let job = models.bench.test.run(queue.find(&EndpointId::new("bad"), id)).unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Failed);
        job.error.clone().unwrap()
    };
    for _ in 0..2 {
        let ids = ["bad", "good"].map(|name| models.submit(name, 1));
        work_off(&mut bad);
        work_off(&mut good);
        assert_eq!(error(&ids[0]), "its unet is damaged");
        assert_eq!(models.status("good", &ids[1]), JobStatus::Completed);
    }
    assert_eq!(models.loaded(), 2, "it is not tried again for each job");

    models.bench.log.refusal.borrow_mut().take();
    bad.tick();
    assert!(!bad.engine.is_loaded(), "it failed just now");
    models.bench.test.pass(Duration::from_secs(30));
    bad.tick();
    assert!(bad.engine.is_loaded(), "it is tried again without a job");
    let id = models.submit("bad", 1);
    work_off(&mut bad);
    assert_eq!(models.status("bad", &id), JobStatus::Completed, "it was repaired");
}

#[test]
fn a_worker_without_an_engine_leaves_the_jobs_to_one_that_has() {
    let models = Models::within(20);
    let mut first = models.worker("a", FirstLoad::IfItFits);
    *models.bench.log.refusal.borrow_mut() = Some(EngineError::OutOfMemory("full".to_owned()));
    let mut second = models.worker("a", FirstLoad::OnDemand);
    let ids: Vec<_> = (0..3).map(|_| models.submit("a", 1)).collect();
    for _ in 0..3 {
        second.tick();
    }
    assert!(!second.engine.is_loaded());
    work_off(&mut first);
    assert!(ids.iter().all(|id| models.status("a", id) == JobStatus::Completed));
}

#[test]
fn an_engine_that_panicked_gives_its_memory_back() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let endpoint = EndpointId::new("a");
    models.bench.test.submit_job(NewJob { endpoint, ..new_job(&input("panic in step", 1)) });
    a.tick();
    assert!(!a.engine.is_loaded());
    let id = models.submit("b", 1);
    work_off(&mut b);
    assert_eq!(models.status("b", &id), JobStatus::Completed);
}
