//! Our kernels against ONNX Runtime's, in turns, on the shapes of Stable Diffusion v1 at 512 × 512.
//!
//!     cargo bench --bench kernels                     # everything
//!     cargo bench --bench kernels -- UNet             # its convolutions; or VAE
//!     cargo bench --bench kernels -- norms            # group norms
//!     cargo bench --bench kernels -- attention        # attention
//!     cargo bench --bench kernels -- linear           # linear layers

mod attention;
mod convolutions;
mod linear;
mod norms;
mod onnx;

use std::time::{Duration, Instant};

use ndarray::Array4;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;
use stablehand::kernels::Level;
use stablehand::runtime::{DeviceChoice, Runtime};

const TRIALS: usize = 5;

/// What all rows of a table are measured with.
struct Bench<'a> {
    environment: &'a Environment,
    threads: usize,
    /// Those with vectors. Without them it is no choice.
    levels: Vec<Level>,
}

fn main() -> ort::Result<()> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let wants = |name: &str| wanted.as_ref().is_none_or(|wanted| name.eq_ignore_ascii_case(wanted));
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads");
    let levels = Level::all().into_iter().filter(|level| *level != Level::Baseline).collect();
    let bench = Bench { environment: runtime.environment(), threads: runtime.threads(), levels };
    println!("{} threads; milliseconds\n", bench.threads);
    if wants("UNet") || wants("VAE") {
        convolutions::table(&bench, &wants)?;
    }
    if wants("norms") {
        norms::table(&bench)?;
    }
    if wants("attention") {
        attention::table(&bench)?;
    }
    if wants("linear") {
        linear::table(&bench)?;
    }
    Ok(())
}

impl Bench<'_> {
    /// Prints the head of a table whose first column is what ONNX Runtime has.
    fn head(&self, what: &str, theirs: &str) {
        print!("{what:>28} {theirs:>16}");
        for level in &self.levels {
            print!(" {:>26}", format!("{level:?}"));
        }
        println!("   ratio");
    }
}

/// Prints a row: each time with the rate in GFLOP/s and the error, and how much longer ONNX Runtime takes than the best of ours.
fn row(name: &str, work: f64, times: &[f64], errors: &[f64]) {
    print!("{name:>28}");
    for (index, (time, error)) in times.iter().zip(errors).enumerate() {
        let width = if index == 0 { 16 } else { 26 };
        let cell = format!("{time:.2} ({:.0}, {error:.0e})", work / time / 1e6);
        print!(" {cell:>width$}");
    }
    println!("   {:.2}", times[0] / times[times.len() - 1]);
}

/// The shortest time of each session, in milliseconds. They take turns, and the first turn goes to `check`.
fn times_of(
    sessions: &mut [Session],
    x: &Array4<f32>,
    mut check: impl FnMut(usize, &[f32]),
) -> ort::Result<Vec<f64>> {
    let mut shortest = vec![Duration::MAX; sessions.len()];
    for trial in 0..=TRIALS {
        for (index, session) in sessions.iter_mut().enumerate() {
            let x = Tensor::from_array(x.clone())?;
            let started = Instant::now();
            let results = session.run(ort::inputs!["x" => x])?;
            let time = started.elapsed();
            if trial == 0 {
                check(index, results[0].try_extract_tensor::<f32>()?.1);
            } else {
                shortest[index] = shortest[index].min(time);
            }
        }
    }
    Ok(shortest.iter().map(|time| time.as_secs_f64() * 1000.0).collect())
}

/// The sums of a table's columns.
struct Totals(Vec<f64>);

impl Totals {
    fn add(&mut self, times: &[f64], count: u16) {
        self.0.resize(times.len(), 0.0);
        for (total, time) in self.0.iter_mut().zip(times) {
            *total += time * f64::from(count);
        }
    }

    fn print(&self) {
        let totals: Vec<_> = self.0.iter().map(|total| format!("{total:.0}")).collect();
        println!("\nall of them: {} ms\n", totals.join(", "));
    }
}

/// Numbers from −1 to 1 with a triangular distribution.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).unwrap_or_default()) / 65536.0
    };
    (0..count).map(|_| next() - next()).collect()
}

fn random_image([batch, channels, height, width]: [usize; 4]) -> Array4<f32> {
    Array4::from_shape_vec((batch, channels, height, width), random(batch * channels * height * width, 1))
        .expect("as many as there are")
}
