//! Several models, and memory for less than all of them.

use super::*;
use crate::worker::residency::TURN;

/// Endpoints with a worker each, all of whose models take 10.
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
        let seat = self.bench.residency.seat(&endpoint, first_load != FirstLoad::OnDemand);
        let assignment = Assignment { endpoint, first_load, unload_after, ..assignment(seat) };
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

    fn built(&self) -> u32 {
        self.bench.log.built.get()
    }
}

#[test]
fn an_engine_is_loaded_for_the_first_job_and_stays() {
    let models = Models::within(10);
    let mut worker = models.worker("a", FirstLoad::OnDemand);
    assert_eq!(worker.run_once(), Turn::Idle);
    assert_eq!((models.built(), models.counts("a").idle), (0, 1));
    for _ in 0..2 {
        let id = models.submit("a", 2);
        work_off(&mut worker);
        assert_eq!(models.status("a", &id), JobStatus::Completed);
        assert_eq!(models.built(), 1);
    }
}

#[test]
fn what_fits_is_loaded_at_the_start_and_the_rest_on_demand() {
    let models = Models::within(20);
    let workers = ["a", "b", "c"].map(|name| models.worker(name, FirstLoad::IfItFits));
    assert_eq!(workers.map(|worker| worker.engine.is_some()), [true, true, false]);
    assert_eq!(models.built(), 2);
}

#[test]
fn the_one_unused_for_longest_makes_room() {
    let models = Models::within(20);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| models.worker(name, FirstLoad::IfItFits));
    for (name, worker) in [("b", &mut b), ("a", &mut a)] {
        models.bench.test.pass(Duration::from_secs(1));
        models.submit(name, 1);
        work_off(worker);
    }
    let id = models.submit("c", 1);
    assert_eq!(c.run_once(), Turn::Waiting);
    assert_eq!(models.counts("c"), WorkerCounts { throttled: 1, ..WorkerCounts::default() });
    assert_eq!(models.status("c", &id), JobStatus::InQueue, "it is not held by one who cannot work on it");
    a.run_once();
    b.run_once();
    assert!(a.engine.is_some() && b.engine.is_none());
    work_off(&mut c);
    assert_eq!(models.status("c", &id), JobStatus::Completed);
    assert!(a.engine.is_some());
}

#[test]
fn an_engine_with_a_job_in_hand_does_not_leave() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let jobs = [3, 1].map(|steps| models.submit("a", steps));
    a.run_once();
    let waiting = models.submit("b", 1);
    models.bench.test.pass(TURN / 2);
    assert_eq!(b.run_once(), Turn::Waiting);
    work_off(&mut a);
    assert!(jobs.iter().all(|id| models.status("a", id) == JobStatus::Completed), "its turn is not over");
    assert!(a.engine.is_some());
    assert_eq!(b.run_once(), Turn::Waiting);
    a.run_once();
    assert!(a.engine.is_none(), "idle it leaves");
    work_off(&mut b);
    assert_eq!(models.status("b", &waiting), JobStatus::Completed);
}

#[test]
fn one_with_jobs_without_end_leaves_after_its_turn_and_comes_back() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let [running, next] = [3, 1].map(|steps| models.submit("a", steps));
    a.run_once();
    let waiting = models.submit("b", 1);
    models.bench.test.pass(TURN);
    assert_eq!(b.run_once(), Turn::Waiting);
    work_off(&mut a);
    assert_eq!(models.status("a", &running), JobStatus::Completed);
    assert_eq!(models.status("a", &next), JobStatus::InQueue);
    assert!(a.engine.is_none());
    work_off(&mut b);
    assert_eq!(models.status("b", &waiting), JobStatus::Completed);
    assert_eq!(a.run_once(), Turn::Waiting);
    b.run_once();
    work_off(&mut a);
    assert_eq!(models.status("a", &next), JobStatus::Completed);
}

#[test]
fn an_engine_that_was_just_loaded_does_its_job_before_it_leaves() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::OnDemand));
    let ids = ["a", "b"].map(|name| models.submit(name, 2));
    a.run_once();
    assert_eq!(b.run_once(), Turn::Waiting);
    assert_eq!(a.run_once(), Turn::Worked);
    for _ in 0..4 {
        a.run_once();
        b.run_once();
    }
    assert_eq!(
        ["a", "b"].map(|name| models.status(name, &ids[usize::from(name == "b")])),
        [JobStatus::Completed; 2]
    );
    assert_eq!(models.built(), 2);
}

#[test]
fn who_needs_room_no_more_has_nobody_leave() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let id = models.submit("b", 1);
    assert_eq!(b.run_once(), Turn::Waiting);
    models.bench.test.run(models.bench.test.queue.cancel(&EndpointId::new("b"), &id)).unwrap();
    assert_eq!(b.run_once(), Turn::Idle);
    assert_eq!(a.run_once(), Turn::Idle);
    assert!(a.engine.is_some());
}

#[test]
fn a_second_engine_of_an_endpoint_takes_only_room_that_is_free() {
    let models = Models::within(20);
    let [mut a, b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let mut second = models.worker("a", FirstLoad::OnDemand);
    models.submit("a", 5);
    models.submit("a", 5);
    a.run_once();
    models.bench.test.pass(TURN);
    assert_eq!(second.run_once(), Turn::Waiting);
    assert!(!a.assignment.seat.is_wanted() && !b.assignment.seat.is_wanted());
    drop(b);
    second.run_once();
    assert!(second.engine.is_some());
}

#[test]
fn an_idle_engine_is_unloaded_after_its_time() {
    let models = Models::within(10);
    let mut worker = models.worker_with("a", FirstLoad::IfItFits, Some(Duration::from_mins(5)));
    models.bench.test.pass(Duration::from_mins(4));
    let id = models.submit("a", 1);
    work_off(&mut worker);
    assert_eq!(models.status("a", &id), JobStatus::Completed);
    models.bench.test.pass(Duration::from_mins(4));
    assert_eq!(worker.patience(), Duration::from_mins(1));
    worker.run_once();
    assert!(worker.engine.is_some());
    models.bench.test.pass(Duration::from_mins(1));
    worker.run_once();
    assert!(worker.engine.is_none());
    models.submit("a", 1);
    work_off(&mut worker);
    assert_eq!(models.built(), 2);
}

#[test]
fn a_model_that_cannot_be_loaded_fails_its_jobs_and_no_others() {
    let models = Models::within(20);
    let mut good = models.worker("good", FirstLoad::IfItFits);
    *models.bench.log.refusal.borrow_mut() = Some(EngineError::Other("its unet is damaged".to_owned()));
    let mut bad = models.worker("bad", FirstLoad::IfItFits);
    let error = |id: &JobId| {
        let queue = &models.bench.test.queue;
        let job = models.bench.test.run(queue.find(&EndpointId::new("bad"), id)).unwrap().unwrap();
        assert_eq!(job.status, JobStatus::Failed);
        job.error.unwrap()
    };
    for _ in 0..2 {
        let ids = ["bad", "good"].map(|name| models.submit(name, 1));
        work_off(&mut bad);
        work_off(&mut good);
        assert_eq!(error(&ids[0]), "its unet is damaged");
        assert_eq!(models.status("good", &ids[1]), JobStatus::Completed);
    }
    assert_eq!(models.built(), 2, "it is not tried again for each job");

    models.bench.log.refusal.borrow_mut().take();
    models.bench.test.pass(Duration::from_secs(30));
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
        second.run_once();
    }
    assert!(second.engine.is_none());
    work_off(&mut first);
    assert!(ids.iter().all(|id| models.status("a", id) == JobStatus::Completed));
}

#[test]
fn an_engine_that_fell_leaves_its_room() {
    let models = Models::within(10);
    let [mut a, mut b] = ["a", "b"].map(|name| models.worker(name, FirstLoad::IfItFits));
    let endpoint = EndpointId::new("a");
    models.bench.test.submit_job(NewJob { endpoint, ..new_job(&input("panic in step", 1)) });
    a.run_once();
    assert!(a.engine.is_none());
    let id = models.submit("b", 1);
    work_off(&mut b);
    assert_eq!(models.status("b", &id), JobStatus::Completed);
}
