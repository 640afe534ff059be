//! Jobs and models that are too large for the memory.

use super::*;
use crate::domain::{Lora, LoraOrigin, Precision};

const TOO_LITTLE: &str = "The server's device (cuda:0) has too little memory for this:";

fn several(bench: &Bench, num_outputs: u32) -> JobId {
    let input = serde_json::json!({"prompt": "a fox", "num_inference_steps": 2, "num_outputs": num_outputs});
    bench.test.submit(&input.to_string())
}

#[test]
fn a_job_that_runs_out_of_memory_fails_alone_and_says_what_to_change() {
    for stage in ["begin", "step", "finish"] {
        let bench = Bench::new();
        let (beside, large) = (bench.submit("a fox", 4), bench.submit(&format!("memory in {stage}"), 2));
        let next = bench.submit("a fox", 2);
        work_off(&mut bench.worker(2));
        let error = bench.error(&large);
        assert!(error.starts_with(TOO_LITTLE), "{error}");
        for way in ["a smaller picture", "fewer outputs", "--memory-budget", "another --device"] {
            assert!(error.contains(way), "{way}: {error}");
        }
        assert!(bench.completed(&beside) && bench.completed(&next), "{stage}");
        assert_eq!(bench.log.loaded.get(), 1);
    }
}

#[test]
fn jobs_that_run_out_of_memory_together_go_on_one_by_one() {
    let bench = Bench::new();
    bench.log.too_many.set(Some(2));
    let ids = [2, 2].map(|steps| bench.submit("a fox", steps));
    let mut worker = bench.worker(2);
    work_off(&mut worker);
    assert!(ids.iter().all(|id| bench.completed(id)));
    // One step together that fails, then each job alone.
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
        "This needs about 50 B of memory, and models may use 40 B: ask for fewer outputs, or let the server draw with \
         a larger --memory-budget or on another --device."
    );
}

#[test]
fn a_refusal_names_what_helps_and_nothing_else() {
    let bench = Bench::new();
    let placement = Placement { device: card(), needs: 10, budget: Some(12) };
    let mut worker = bench.try_worker(bench.assignment(), 1, placement).unwrap();
    bench.log.checker.set(3);
    let checked = bench.test.submit(r#"{"prompt": "a fox", "num_inference_steps": 1, "nsfw": false}"#);
    let unchecked = bench.test.submit(r#"{"prompt": "a fox", "num_inference_steps": 1, "nsfw": true}"#);
    work_off(&mut worker);
    assert_eq!(
        bench.error(&checked),
        "This needs about 13 B of memory, and models may use 12 B: ask for a picture that is not checked (`nsfw: \
         true`), or let the server draw with a larger --memory-budget or on another --device."
    );
    assert!(bench.completed(&unchecked));

    bench.log.kept.set(4);
    let hopeless = bench.test.submit(r#"{"prompt": "a fox", "num_inference_steps": 1, "nsfw": true}"#);
    work_off(&mut worker);
    assert_eq!(
        bench.error(&hopeless),
        "This needs about 14 B of memory, and models may use 12 B: let the server draw with a larger \
         --memory-budget or on another --device."
    );
}

#[test]
fn a_refusal_names_what_is_prepared_for_the_job() {
    let bench = Bench::new();
    let placement = Placement { device: card(), needs: 10, budget: Some(20) };
    let mut worker = bench.try_worker(bench.assignment(), 1, placement).unwrap();
    let fits = bench.submit("a fox", 1);
    work_off(&mut worker);
    assert!(bench.completed(&fits));
    let lora = Lora {
        name: "ink".to_owned(),
        unet: 1.0,
        text_encoder: 1.0,
        blocks: None,
        origin: LoraOrigin::Field,
    };
    for (loras, precision, parts, way) in [
        (vec![lora.clone()], Precision::Full, "LoRAs", "a picture without LoRAs"),
        (Vec::new(), Precision::Int8, "weights in int8", "a picture in full precision"),
        (
            vec![lora],
            Precision::Int8,
            "LoRAs and weights in int8",
            "a picture in full precision without LoRAs",
        ),
    ] {
        let job = GenerationInput { loras, precision, num_outputs: 1, ..GenerationInput::new("a fox") };
        assert_eq!(
            worker.engine.too_large(&job, 15),
            format!(
                "This needs about 25 B of memory (15 B of it for its {parts}), and models may use 20 B: ask for \
                 {way}, or let the server draw with a larger --memory-budget or on another --device."
            )
        );
    }
}

#[test]
fn a_model_beyond_the_budget_is_refused_with_both_sizes() {
    let bench = Bench::new();
    let placement = Placement { device: card(), needs: 10 << 30, budget: Some(4 << 30) };
    let refused = bench.try_worker(bench.assignment(), 1, placement).err().unwrap();
    assert_eq!(
        refused,
        "The model needs about 10.0 GiB of memory, and models may use 4.0 GiB: raise --memory-budget, or choose \
         another --device."
    );
}

#[test]
fn jobs_fail_if_there_is_too_little_memory_to_load_their_model() {
    let bench = Bench::new();
    let assignment = Assignment { first_load: FirstLoad::OnDemand, ..bench.assignment() };
    let placement = Placement { device: card(), needs: 10, budget: None };
    let mut worker = bench.try_worker(assignment, 1, placement).unwrap();
    *bench.log.refusal.borrow_mut() = Some(EngineError::OutOfMemory("Failed to allocate memory".to_owned()));
    let id = bench.submit("a fox", 1);
    work_off(&mut worker);
    assert_eq!(
        bench.error(&id),
        "The server's device (cuda:0) has too little memory to load the model: let the server use a smaller \
         --memory-budget, so that other models are unloaded, or another --device."
    );
}
