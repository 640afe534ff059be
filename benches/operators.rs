//! Where a network's time goes: the share of each operator in ONNX Runtime's own profile, on the CPU.
//!
//!     cargo bench --bench operators                             # the built-in model
//!     STABLEHAND_SD15=FOLDER cargo bench --bench operators      # what tests/golden/make_sd15.py wrote, at 512×512
//!
//! Draws one guided picture in `STEPS` steps (3). `STABLEHAND_CPU_SPEED` chooses the convolutions.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stablehand::diffusion::Model;
use stablehand::domain::{GenerationInput, ImageSize};
use stablehand::runtime::{CpuSettings, DeviceChoice, Runtime};

fn main() {
    let checkpoint =
        env::var_os("STABLEHAND_SD15").map(|folder| PathBuf::from(folder).join("ldm.safetensors"));
    let side = if checkpoint.is_some() { 512 } else { 128 };
    let steps = env::var("STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(3);
    let speed =
        env::var("STABLEHAND_CPU_SPEED").ok().and_then(|speed| speed.parse().ok()).unwrap_or_default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads");
    let runtime =
        runtime.with_cpu(CpuSettings { speed, ..CpuSettings::default() }).with_profiles(folder.path());
    let model = Model::open(checkpoint.as_deref(), None).expect("the model opens");
    let mut pipeline = model.load(&runtime).expect("the model loads");
    let input = GenerationInput {
        size: ImageSize { width: side, height: side },
        num_inference_steps: steps,
        ..GenerationInput::new("a red fox")
    };
    pipeline.draw(&input, 1).expect("it draws");
    // Profiles are written when sessions end.
    drop(pipeline);
    drop(model);
    let mut profiles: Vec<PathBuf> = fs::read_dir(folder.path())
        .expect("the folder")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    profiles.sort();
    for profile in &profiles {
        print_shares(profile);
    }
}

/// Prints a session's operators, the longest first.
fn print_shares(profile: &Path) {
    let text = fs::read(profile).expect("a profile");
    let events: Vec<Value> = serde_json::from_slice(&text).expect("a list of events");
    let (mut runs, mut whole) = (0, 0.0);
    let mut operators: BTreeMap<&str, (u32, f64)> = BTreeMap::new();
    for event in &events {
        let (name, time) =
            (event["name"].as_str().unwrap_or_default(), event["dur"].as_f64().unwrap_or(0.0) / 1000.0);
        if name == "model_run" {
            runs += 1;
            whole += time;
        }
        if let (true, Some(operator)) = (name.ends_with("_kernel_time"), event["args"]["op_name"].as_str()) {
            let (count, sum) = operators.entry(operator).or_default();
            *count += 1;
            *sum += time;
        }
    }
    if runs == 0 {
        return;
    }
    let mut operators: Vec<_> = operators.into_iter().collect();
    operators.sort_by(|(_, (_, a)), (_, (_, b))| b.total_cmp(a));
    println!(
        "\n{}: {runs} runs, {:.1} ms each",
        profile.file_stem().unwrap_or_default().display(),
        whole / f64::from(runs)
    );
    for (operator, (count, time)) in operators {
        if time / whole >= 0.001 {
            let each = time / f64::from(runs);
            println!("{operator:28} {:6} calls {each:10.2} ms  {:5.1} %", count / runs, 100.0 * time / whole);
        }
    }
}
