//! Our group norm with `SiLU` against ONNX Runtime's operators for it: an instance norm, a product, a sum and a `QuickGelu`.
//!
//! GB/s count one read and one write of the image. Our norm reads it twice, and theirs five times.

use ort::session::Session;
use stablehand::kernels::Level;

use crate::onnx::{Graph, float, whole};
use crate::{Bench, Totals, random, random_image, times_of};

/// Batch, side of the image, channels; how many a step or a decode has.
const SHAPES: [([usize; 3], u16); 13] = [
    ([2, 64, 320], 8),
    ([2, 64, 640], 2),
    ([2, 64, 960], 1),
    ([2, 32, 640], 7),
    ([2, 32, 1280], 1),
    ([2, 32, 1920], 1),
    ([2, 16, 1280], 7),
    ([2, 16, 2560], 2),
    ([2, 8, 1280], 11),
    ([1, 64, 512], 10),
    ([1, 128, 512], 6),
    ([1, 256, 256], 5),
    ([1, 512, 128], 6),
];
const GROUPS: usize = 32;
const EPSILON: f32 = 1e-5;

pub fn table(bench: &Bench<'_>) -> ort::Result<()> {
    bench.head("b×side² channels, how many", "in four");
    let mut totals = Totals(Vec::new());
    for ([batch, side, channels], count) in SHAPES {
        let shape = [batch, channels, side, side];
        let mut sessions = vec![session(bench, shape, None)?];
        for level in &bench.levels {
            sessions.push(session(bench, shape, Some(*level))?);
        }
        let mut firsts: Vec<Vec<f32>> = Vec::new();
        let times =
            times_of(&mut sessions, &random_image(shape), |_, results| firsts.push(results.to_vec()))?;
        print!("{:>28}", format!("{batch}×{side}² {channels}, {count}"));
        #[expect(clippy::cast_precision_loss, reason = "to show")]
        let bytes = 8.0 * (batch * channels * side * side) as f64;
        for (index, (time, results)) in times.iter().zip(&firsts).enumerate() {
            let rate = format!("{time:8.2} ({:4.1}", bytes / time / 1e6);
            if index == 0 {
                print!(" {rate:>15})");
            } else {
                print!(" {rate:>15}, {:.1e})", difference(results, &firsts[0]));
            }
        }
        println!("   {:.2}", times[0] / times[times.len() - 1]);
        totals.add(&times, count);
    }
    totals.print();
    Ok(())
}

/// The largest, relative to the largest value.
fn difference(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
    a.iter().zip(b).fold(0_f32, |worst, (a, b)| worst.max((a - b).abs())) / largest
}

fn session(bench: &Bench<'_>, shape: [usize; 4], level: Option<Level>) -> ort::Result<Session> {
    let (mut graph, channels) = (Graph::default(), shape[1]);
    let epsilon = float("epsilon", EPSILON);
    graph.floats("w", &[channels, 1, 1][..if level.is_some() { 1 } else { 3 }], &random(channels, 2));
    graph.floats("b", &[channels, 1, 1][..if level.is_some() { 1 } else { 3 }], &random(channels, 3));
    if level.is_some() {
        let attributes = [whole("groups", GROUPS), epsilon, whole("silu", 1)];
        graph.node("GroupNorm", "stablehand", &["x", "w", "b"], "y", &attributes);
    } else {
        graph.floats("ones", &[GROUPS], &[1.0; GROUPS]);
        graph.floats("zeros", &[GROUPS], &[0.0; GROUPS]);
        graph.shape("grouped", &[0, 32, -1]);
        graph.node("Reshape", "", &["x", "grouped"], "g", &[]);
        graph.node("InstanceNormalization", "", &["g", "ones", "zeros"], "n", &[epsilon]);
        graph.node("Shape", "", &["x"], "s", &[]);
        graph.node("Reshape", "", &["n", "s"], "i", &[]);
        graph.node("Mul", "", &["i", "w"], "m", &[]);
        graph.node("Add", "", &["m", "b"], "a", &[]);
        graph.node("QuickGelu", "com.microsoft", &["a"], "y", &[float("alpha", 1.0)]);
    }
    graph.session(bench.environment, shape, shape, bench.threads, level)
}
