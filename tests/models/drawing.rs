//! Each exporter's folder draws the built-in model's red heart.

use std::cell::RefCell;

use stablehand::diffusion::{Model, ModelError, Pipeline};
use stablehand::domain::{GenerationInput, ImageSize, SchedulerKind};
use stablehand::runtime::{DeviceChoice, Runtime};

use crate::check::check;
use crate::folders::Folder;
use crate::onnx::{FLOAT, FLOAT16, INT32, INT64};

pub fn load(folder: &Folder) -> Result<Pipeline, ModelError> {
    Model::open(Some(folder.path()), None)?.load(&Runtime::load(DeviceChoice::Cpu)?)
}

pub fn heart(scheduler: SchedulerKind) -> GenerationInput {
    GenerationInput {
        size: ImageSize { width: 128, height: 128 },
        num_inference_steps: 6,
        guidance_scale: 5.0,
        scheduler,
        ..GenerationInput::new("a red heart")
    }
}

pub fn draw(pipeline: &mut Pipeline, scheduler: SchedulerKind) -> Vec<u8> {
    pipeline.draw(&heart(scheduler), 7).unwrap().remove(0).image.pixels
}

pub fn by_the_built_in_model(scheduler: SchedulerKind) -> Vec<u8> {
    thread_local! {
        static PIPELINE: RefCell<Pipeline> = RefCell::new({
            let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
            Model::open(None, None).unwrap().load(&runtime).unwrap()
        });
    }
    PIPELINE.with_borrow_mut(|pipeline| draw(pipeline, scheduler))
}

/// The likeness of two pictures in decibels; infinite where they are equal.
pub fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let error: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
    #[expect(clippy::cast_precision_loss, reason = "pictures are small")]
    let values = a.len() as f64;
    10.0 * (255.0 * 255.0 * values / error).log10()
}

#[track_caller]
fn assert_same(folder: &Folder, scheduler: SchedulerKind, at_least: f64) {
    let mut pipeline = load(folder).unwrap();
    let likeness = psnr(&draw(&mut pipeline, scheduler), &by_the_built_in_model(scheduler));
    assert!(likeness >= at_least, "{likeness:.1} dB with {scheduler}");
}

/// Whole timesteps and full precision: the last digit of a sum may differ, no more.
const EXACT: f64 = 60.0;
/// Half precision at every border of every step.
const HALF: f64 = 40.0;

#[test]
fn the_legacy_script_of_diffusers_is_drawn_exactly_at_whole_timesteps() {
    assert_same(&Folder::diffusers_legacy(), SchedulerKind::Ddim, EXACT);
}

#[test]
fn optimum_s_export_is_drawn_exactly_at_whole_timesteps() {
    assert_same(&Folder::optimum(), SchedulerKind::Pndm, EXACT);
}

#[test]
fn a_unet_with_whole_timesteps_truncates_fractional_ones_with_a_warning() {
    let folder = Folder::optimum();
    assert_same(&folder, SchedulerKind::KLms, 25.0);
    let warnings = load(&folder).unwrap().warnings();
    assert!(warnings.iter().any(|warning| warning.contains("whole timesteps")), "{warnings:?}");
    assert_eq!(load(&Folder::tiny_sd()).unwrap().warnings(), Vec::<String>::new());
}

#[test]
fn olive_s_export_is_drawn_exactly() {
    assert_same(&Folder::olive(), SchedulerKind::EulerD, EXACT);
}

#[test]
fn unpaint_s_half_precision_is_drawn_nearly() {
    for scheduler in [SchedulerKind::EulerD, SchedulerKind::Ddim] {
        assert_same(&Folder::unpaint(), scheduler, HALF);
    }
}

#[test]
fn every_integer_type_and_every_rank_works() {
    for (element, sizes) in
        [(INT64, &["1"][..]), (INT32, &[]), (FLOAT, &[]), (FLOAT, &["1"]), (FLOAT16, &["steps"])]
    {
        let folder = Folder::tiny_sd();
        folder.ids(if element == INT64 { INT64 } else { INT32 });
        folder.timestep(element, sizes);
        assert_same(&folder, SchedulerKind::Ddim, EXACT);
    }
}

#[test]
fn the_default_scaling_factor_is_stable_diffusion_v1_s() {
    let folder = Folder::tiny_sd();
    folder.usual_scaling_factor();
    for half in ["vae_decoder", "vae_encoder"] {
        folder.edit_json(&format!("{half}/config.json"), |config| {
            config.remove("scaling_factor");
        });
    }
    assert_same(&folder, SchedulerKind::EulerD, EXACT);
    let warnings = load(&folder).unwrap().warnings();
    assert_eq!(warnings, ["its VAE states no scaling_factor: 0.18215 is used"]);
}

#[test]
fn graphs_may_have_other_file_names() {
    let folder = Folder::tiny_sd();
    for (part, name) in
        [("text_encoder", "model_fp16.onnx"), ("unet", "unet.onnx"), ("vae_decoder", "model.fp16.onnx")]
    {
        std::fs::rename(folder.file(&format!("{part}/model.onnx")), folder.file(&format!("{part}/{name}")))
            .unwrap();
    }
    assert_same(&folder, SchedulerKind::EulerD, EXACT);
}

#[test]
fn a_safety_checker_may_be_null_missing_or_named_without_a_folder() {
    let folder = Folder::tiny_sd();
    folder.edit_json("model_index.json", |index| {
        index.insert("safety_checker".into(), serde_json::Value::Null);
    });
    load(&folder).unwrap();
    folder.edit_json("model_index.json", |index| {
        index.insert(
            "safety_checker".into(),
            serde_json::json!(["stable_diffusion", "StableDiffusionSafetyChecker"]),
        );
    });
    load(&folder).unwrap();
}

#[test]
fn a_safety_checker_flags_pictures_only_if_the_request_asks_for_it() {
    let folder = Folder::tiny_sd();
    folder.safety_checker();
    let mut pipeline = load(&folder).unwrap();
    for (prompt, nsfw, flagged) in [
        ("a heart on a red background", false, true),
        ("a heart on a red background", true, false),
        ("a heart on a blue background", false, false),
    ] {
        let input = GenerationInput { nsfw, prompt: prompt.to_owned(), ..heart(SchedulerKind::EulerD) };
        let mut generation = pipeline.begin(&input, 7).unwrap();
        while !generation.is_done() {
            pipeline.step(&mut [&mut generation]).unwrap();
            // A preview would show what the checker has not seen.
            assert!(nsfw || pipeline.preview(&generation).is_none());
        }
        assert_eq!(pipeline.finish(&generation).unwrap()[0].flagged, flagged, "{prompt}, nsfw {nsfw}");
    }
}

#[test]
fn a_safety_checker_without_a_verdict_is_refused() {
    let folder = Folder::tiny_sd();
    folder.safety_checker();
    folder.edit("safety_checker", |model| {
        model.graph().outputs.pop();
    });
    // Whoever wants no verdict draws as ever; who wants one is not served unchecked pictures.
    let mut pipeline = load(&folder).unwrap();
    pipeline.draw(&heart(SchedulerKind::EulerD), 7).unwrap();
    let checked = GenerationInput { nsfw: false, ..heart(SchedulerKind::EulerD) };
    let sentence = pipeline.draw(&checked, 7).err().unwrap().to_string();
    assert!(sentence.contains("safety_checker") && sentence.contains("has_nsfw_concepts"), "{sentence}");
    let (code, stdout, _) = check(folder.path());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("has_nsfw_concepts"), "{stdout}");
}
