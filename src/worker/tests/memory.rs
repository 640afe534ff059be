//! Jobs that memory does not suffice for.

use super::*;

const DID_NOT_SUFFICE: &str = "The memory of the server's device (cuda:0) did not suffice";

fn several(bench: &Bench, num_outputs: u32) -> JobId {
    let input = serde_json::json!({"prompt": "a fox", "num_inference_steps": 2, "num_outputs": num_outputs});
    bench.test.submit(&input.to_string())
}

#[test]
fn a_job_that_memory_does_not_suffice_for_fails_alone_and_says_what_to_change() {
    for stage in ["begin", "step", "finish"] {
        let bench = Bench::new();
        let (beside, large) = (bench.submit("a fox", 4), bench.submit(&format!("memory in {stage}"), 2));
        let next = bench.submit("a fox", 2);
        work_off(&mut bench.worker(2));
        let error = bench.error(&large);
        assert!(error.starts_with(DID_NOT_SUFFICE), "{error}");
        for way in ["a smaller picture", "fewer outputs", "--memory-budget", "another --device"] {
            assert!(error.contains(way), "{way}: {error}");
        }
        assert!(bench.completed(&beside) && bench.completed(&next), "{stage}");
        assert_eq!(bench.log.built.get(), 1);
    }
}

#[test]
fn jobs_that_memory_does_not_suffice_for_together_go_on_one_by_one() {
    let bench = Bench::new();
    bench.log.too_many.set(Some(2));
    let ids = [2, 2].map(|steps| bench.submit("a fox", steps));
    let mut worker = bench.worker(2);
    work_off(&mut worker);
    assert!(ids.iter().all(|id| bench.completed(id)));
    // One together in vain, then each alone.
    assert_eq!(bench.log.steps.get(), 1 + 2 * 2);
    bench.log.too_many.set(None);
    let ids = [2, 2].map(|steps| bench.submit("a fox", steps));
    work_off(&mut worker);
    assert!(ids.iter().all(|id| bench.completed(id)));
    assert_eq!(bench.log.steps.get(), 5 + 2, "together again");
}

#[test]
fn a_job_beyond_the_budget_is_not_begun() {
    let bench = Bench::new();
    let placement = Placement { device: card(), needs: 10, budget: Some(40) };
    let mut worker = bench.try_worker(bench.assignment(), 1, placement).unwrap();
    let (fits, does_not) = (several(&bench, 4), several(&bench, 5));
    work_off(&mut worker);
    assert!(bench.completed(&fits));
    assert_eq!(
        bench.error(&does_not),
        "This would take about 50 B of memory, and 40 B is what models may take: ask for a smaller picture or \
         fewer outputs, or let the server draw with a larger --memory-budget or on another --device."
    );
}

#[test]
fn a_model_beyond_the_budget_is_refused_with_both_sizes() {
    let bench = Bench::new();
    let placement = Placement { device: card(), needs: 10 << 30, budget: Some(4 << 30) };
    let refused = bench.try_worker(bench.assignment(), 1, placement).err().unwrap();
    assert_eq!(
        refused,
        "The model takes about 10.0 GiB of memory, and 4.0 GiB is what models may take: raise --memory-budget, \
         or choose another --device."
    );
}

#[test]
fn memory_that_does_not_suffice_for_the_model_fails_its_jobs_alone() {
    let bench = Bench::new();
    let assignment = Assignment { first_load: FirstLoad::OnDemand, ..bench.assignment() };
    let placement = Placement { device: card(), needs: 10, budget: None };
    let mut worker = bench.try_worker(assignment, 1, placement).unwrap();
    *bench.log.refusal.borrow_mut() = Some(EngineError::OutOfMemory("Failed to allocate memory".to_owned()));
    let id = bench.submit("a fox", 1);
    work_off(&mut worker);
    assert_eq!(
        bench.error(&id),
        "The memory of the server's device (cuda:0) did not suffice to load the model: let the server use a \
         smaller --memory-budget, so that others leave, or another --device."
    );
}
