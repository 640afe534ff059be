//! Our 3×3 convolution against ONNX Runtime's convolution in blocks of channels.
//!
//! GFLOP/s count the products of a direct convolution, so that both have the same number. F(4, 3) needs a quarter of them:
//! four times the processor's peak is the bound. The error is the largest of some hundred results against float64,
//! relative to the largest of them.

use ndarray::Array4;
use ort::session::Session;
use stablehand::kernels::Level;

use crate::onnx::{Graph, wholes};
use crate::{Bench, Totals, random, random_image, times_of};

const LANES: usize = 16;

/// Network; batch, side of the image, input channels, output channels; how many a step or a decode has.
const SHAPES: [(&str, [usize; 4], u16); 25] = [
    ("UNet", [2, 64, 320, 320], 7),
    ("UNet", [2, 64, 640, 320], 2),
    ("UNet", [2, 64, 960, 320], 1),
    ("UNet", [2, 64, 640, 640], 1),
    ("UNet", [2, 32, 320, 640], 1),
    ("UNet", [2, 32, 640, 640], 6),
    ("UNet", [2, 32, 960, 640], 1),
    ("UNet", [2, 32, 1280, 640], 1),
    ("UNet", [2, 32, 1920, 640], 1),
    ("UNet", [2, 32, 1280, 1280], 1),
    ("UNet", [2, 16, 640, 1280], 1),
    ("UNet", [2, 16, 1280, 1280], 7),
    ("UNet", [2, 16, 1920, 1280], 1),
    ("UNet", [2, 16, 2560, 1280], 2),
    ("UNet", [2, 8, 1280, 1280], 11),
    ("UNet", [2, 8, 2560, 1280], 3),
    ("VAE", [1, 64, 512, 512], 10),
    ("VAE", [1, 128, 512, 512], 7),
    ("VAE", [1, 256, 512, 512], 1),
    ("VAE", [1, 256, 512, 256], 1),
    ("VAE", [1, 256, 256, 256], 5),
    ("VAE", [1, 512, 256, 256], 1),
    ("VAE", [1, 512, 256, 128], 1),
    ("VAE", [1, 512, 128, 128], 5),
    // a hires pass of 768 × 1024, by its smaller side
    ("UNet", [2, 96, 320, 320], 0),
];

pub fn table(bench: &Bench<'_>, wants: &impl Fn(&str) -> bool) -> ort::Result<()> {
    bench.head("b×side² in → out, how many", "in blocks");
    let mut totals = Totals(Vec::new());
    for (network, shape, count) in SHAPES {
        if wants(network) {
            totals.add(&row(bench, network, shape, count)?, count);
        }
    }
    totals.print();
    Ok(())
}

/// Times one convolution in blocks and at each level. Milliseconds.
fn row(bench: &Bench<'_>, network: &str, shape: [usize; 4], count: u16) -> ort::Result<Vec<f64>> {
    let [batch, side, inputs, outputs] = shape;
    let x = random_image([batch, inputs, side, side]);
    let weights = random(outputs * inputs * 9, 2);
    let mut sessions = vec![session(bench, shape, &weights, None)?];
    for level in &bench.levels {
        sessions.push(session(bench, shape, &weights, Some(*level))?);
    }
    let mut errors = vec![0.0; sessions.len()];
    let times = times_of(&mut sessions, &x, |index, results| {
        errors[index] = error(shape, &x, &weights, results);
    })?;
    #[expect(clippy::cast_precision_loss, reason = "to show")]
    let operations = 2.0 * (batch * side * side * inputs * outputs * 9) as f64;
    print!("{:>28}", format!("{network} {batch}×{side}² {inputs} → {outputs}, {count}"));
    for (index, time) in times.iter().enumerate() {
        let rate = format!("{time:8.2} ({:4.0}", operations / time / 1e6);
        if index == 0 { print!(" {rate:>15})") } else { print!(" {rate:>15}, {:.1e})", errors[index]) }
    }
    println!("   {:.2}", times[0] / times[times.len() - 1]);
    Ok(times)
}

/// A session of one convolution: our operator at a level, or ONNX Runtime's own, which it works on in blocks.
fn session(
    bench: &Bench<'_>,
    [batch, side, inputs, outputs]: [usize; 4],
    weights: &[f32],
    level: Option<Level>,
) -> ort::Result<Session> {
    let mut values = weights.to_vec();
    if level.is_some() {
        for (index, value) in weights.iter().enumerate() {
            let (output, input, place) = (index / 9 / inputs, index / 9 % inputs, index % 9);
            values[((output / LANES * inputs + input) * 9 + place) * LANES + output % LANES] = *value;
        }
    }
    let mut graph = Graph::default();
    graph.floats("w", &[outputs, inputs, 3, 3], &values);
    graph.floats("b", &[outputs], &vec![0.0; outputs]);
    if level.is_some() {
        graph.node("Conv3x3", "stablehand", &["x", "w", "b"], "y", &[]);
    } else {
        graph.node("Conv", "", &["x", "w", "b"], "y", &[wholes("pads", &[1; 4])]);
    }
    let (x, y) = ([batch, inputs, side, side], [batch, outputs, side, side]);
    graph.session(bench.environment, x, y, bench.threads, level)
}

/// The largest difference of some results to the sums in float64, relative to the largest.
fn error([_, side, inputs, outputs]: [usize; 4], x: &Array4<f32>, weights: &[f32], results: &[f32]) -> f64 {
    let (mut worst, mut largest) = (0_f64, 0_f64);
    for index in (0..results.len()).step_by((results.len() / 400) | 1) {
        let (image, output) = (index / (side * side) / outputs, index / (side * side) % outputs);
        let (row, column) = (index / side % side, index % side);
        let mut sum = 0.0;
        for input in 0..inputs {
            for (dy, dx) in (0..9).map(|place| (place / 3, place % 3)) {
                let (Some(y), Some(x_)) = ((row + dy).checked_sub(1), (column + dx).checked_sub(1)) else {
                    continue;
                };
                let value = x.get((image, input, y, x_)).copied().unwrap_or_default();
                sum += f64::from(value) * f64::from(weights[(output * inputs + input) * 9 + dy * 3 + dx]);
            }
        }
        worst = worst.max((sum - f64::from(results[index])).abs());
        largest = largest.max(sum.abs());
    }
    worst / largest
}
