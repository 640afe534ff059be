//! How long a full-size checkpoint takes to load, and how much memory at its peak and afterwards, beside diffusers:
//!
//!     python tests/golden/make_sd15.py OUT
//!     STABLEHAND_SD15=OUT PYTHON=python cargo bench --bench checkpoint
//!
//! Each form is loaded in a process of its own, whose peak the kernel tells.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use stablehand::diffusion::Model;
use stablehand::runtime::{DeviceChoice, Runtime};

fn main() {
    if let Some(form) = env::var_os("STABLEHAND_BENCH_FORM") {
        load(Path::new(&form));
        return;
    }
    let Some(folder) = env::var_os("STABLEHAND_SD15").map(PathBuf::from) else {
        println!("STABLEHAND_SD15 should name a folder that tests/golden/make_sd15.py made");
        return;
    };
    println!("{:<34} {:>8} {:>10} {:>12}", "", "load", "peak", "afterwards");
    for form in ["ldm.safetensors", "diffusers", "onnx"].map(|form| folder.join(form)) {
        if form.exists() {
            let this = env::current_exe().expect("this program has a path");
            let status = Command::new(this).env("STABLEHAND_BENCH_FORM", &form).status();
            assert!(status.is_ok_and(|status| status.success()), "{} was not loaded", form.display());
        }
    }
    if let Ok(python) = env::var("PYTHON") {
        for how in ["from_single_file", "from_pretrained"] {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/make_sd15.py");
            let status = Command::new(&python).arg(script).arg(&folder).args(["--measure", how]).status();
            assert!(status.is_ok_and(|status| status.success()), "diffusers did not load it");
        }
    }
}

fn load(form: &Path) {
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads");
    let started = Instant::now();
    let model = Model::open(Some(form), None).expect("it is a model");
    let pipeline = model.load(&runtime).expect("it loads");
    let seconds = started.elapsed().as_secs_f64();
    let name = form.file_name().unwrap_or_default().to_string_lossy();
    let (peak, now) = (memory("VmHWM"), memory("VmRSS"));
    println!("{:<34} {seconds:>6.1} s {peak:>7} MB {now:>9} MB", format!("stablehand, {name}"));
    drop(pipeline);
}

/// A line of what Linux tells of this process, in MB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}
