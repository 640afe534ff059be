//! Our linear layers against ONNX Runtime's `FusedMatMul`, with what a transformer has around them.
//!
//! The errors, relative to the largest value, are those of some results against float64. Each of ONNX Runtime's rows has a norm of
//! its own here, as ours have. In its graphs, the layers of queries, keys and values share one.

use ndarray::Array4;
use ort::session::Session;
use stablehand::kernels::Level;

use crate::onnx::{Graph, float, whole};
use crate::{Bench, Totals, random, row, times_of};

/// What is around the products.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Around {
    Nothing,
    /// A layer norm before them.
    Norm,
    /// A layer norm before them, and GEGLU.
    Gated,
    /// The bias and another value to add.
    Sum,
}

/// Rows, inputs, outputs; what is around; how many a step has.
const SHAPES: [([usize; 3], Around, u16); 18] = [
    ([8192, 320, 320], Around::Norm, 20),
    ([8192, 320, 320], Around::Sum, 10),
    ([8192, 320, 2560], Around::Gated, 5),
    ([8192, 1280, 320], Around::Sum, 5),
    ([2048, 640, 640], Around::Norm, 20),
    ([2048, 640, 640], Around::Sum, 10),
    ([2048, 640, 5120], Around::Gated, 5),
    ([2048, 2560, 640], Around::Sum, 5),
    ([512, 1280, 1280], Around::Norm, 20),
    ([512, 1280, 1280], Around::Sum, 10),
    ([512, 1280, 10240], Around::Gated, 5),
    ([512, 5120, 1280], Around::Sum, 5),
    ([128, 1280, 1280], Around::Norm, 4),
    ([128, 1280, 1280], Around::Sum, 2),
    ([128, 1280, 10240], Around::Gated, 1),
    ([128, 5120, 1280], Around::Sum, 1),
    ([154, 768, 1280], Around::Nothing, 12),
    ([2, 1280, 1280], Around::Sum, 10),
];
const EPSILON: f32 = 1e-5;

struct Case {
    sizes: [usize; 3],
    around: Around,
    x: Vec<f32>,
    /// [outputs][inputs]
    weight: Vec<f32>,
    bias: Vec<f32>,
    plus: Vec<f32>,
    norm: [Vec<f32>; 2],
}

pub fn table(bench: &Bench<'_>) -> ort::Result<()> {
    bench.head("rows×inputs→outputs, count", "FusedMatMul");
    let mut totals = Totals(Vec::new());
    for (sizes, around, count) in SHAPES {
        let [rows, inputs, outputs] = sizes;
        let case = Case {
            sizes,
            around,
            x: random(rows * inputs, 1),
            weight: random(inputs * outputs, 2),
            bias: random(outputs, 3),
            plus: random(rows * outputs, 4),
            norm: [random(inputs, 5), random(inputs, 6)],
        };
        let mut sessions = vec![case.session(bench, None)?];
        for level in &bench.levels {
            sessions.push(case.session(bench, Some(*level))?);
        }
        let x = Array4::from_shape_vec((1, 1, rows, inputs), case.x.clone()).expect("as many");
        let mut errors = Vec::new();
        let times = times_of(&mut sessions, &x, |_, results| errors.push(case.error(results)))?;
        #[expect(clippy::cast_precision_loss, reason = "to show")]
        let work = 2.0 * (rows * inputs * outputs) as f64;
        row(&format!("{rows}×{inputs}→{outputs} {around:?}, {count}"), work, &times, &errors);
        totals.add(&times, count);
    }
    totals.print();
    Ok(())
}

impl Case {
    fn is_gated(&self) -> bool {
        self.around == Around::Gated
    }

    fn is_normed(&self) -> bool {
        matches!(self.around, Around::Norm | Around::Gated)
    }

    fn session(&self, bench: &Bench<'_>, level: Option<Level>) -> ort::Result<Session> {
        let [rows, inputs, outputs] = self.sizes;
        let width = if self.is_gated() { outputs / 2 } else { outputs };
        let result = [1, 1, rows, width];
        let has_bias = matches!(self.around, Around::Gated | Around::Sum);
        let mut graph = Graph::default();
        graph.floats("bias", &[outputs], &self.bias);
        graph.floats("plus", &result, &self.plus[..rows * width]);
        graph.floats("norm", &[inputs], &self.norm[0]);
        graph.floats("shift", &[inputs], &self.norm[1]);
        if level.is_some() {
            graph.floats("weight", &[outputs, inputs], &self.in_blocks());
            let mut names = vec!["x", "weight", "", "", "", ""];
            if has_bias {
                names[2] = "bias";
            }
            if self.around == Around::Sum {
                names[3] = "plus";
            }
            if self.is_normed() {
                (names[4], names[5]) = ("norm", "shift");
            }
            let attributes = [whole("gated", usize::from(self.is_gated())), float("epsilon", EPSILON)];
            graph.node("Linear", "stablehand", &names, "y", &attributes);
        } else {
            graph.floats("weight", &[outputs, inputs], &self.weight);
            let mut x = "x";
            if self.is_normed() {
                let epsilon = [float("epsilon", EPSILON)];
                graph.node("LayerNormalization", "", &["x", "norm", "shift"], "n", &epsilon);
                x = "n";
            }
            let product = if has_bias { "p" } else { "y" };
            let transposed = [whole("transB", 1)];
            graph.node("FusedMatMul", "com.microsoft", &[x, "weight"], product, &transposed);
            match self.around {
                Around::Nothing | Around::Norm => {}
                Around::Sum => {
                    graph.node("Add", "", &["p", "bias"], "s", &[]);
                    graph.node("Add", "", &["s", "plus"], "y", &[]);
                }
                Around::Gated => {
                    graph.node("Add", "", &["p", "bias"], "s", &[]);
                    graph.halves("s", ["value", "gate"]);
                    graph.node("Gelu", "", &["gate"], "g", &[]);
                    graph.node("Mul", "", &["value", "g"], "y", &[]);
                }
            }
        }
        graph.session(bench.environment, [1, 1, rows, inputs], result, bench.threads, level)
    }

    /// The weight in the order [outputs / 16][inputs][16].
    fn in_blocks(&self) -> Vec<f32> {
        let [_, inputs, _] = self.sizes;
        let blocks = self.weight.chunks(16 * inputs);
        blocks.flat_map(|block| (0..16 * inputs).map(|at| block[at % 16 * inputs + at / 16])).collect()
    }

    /// The largest error of some results, relative to their largest value.
    fn error(&self, results: &[f32]) -> f64 {
        let [rows, inputs, outputs] = self.sizes;
        let width = if self.is_gated() { outputs / 2 } else { outputs };
        let (mut worst, mut largest) = (0_f64, 0_f64);
        for sample in 0..400 {
            let (row, column) = (sample * 7919 % rows, sample * 104_729 % width);
            let mut x: Vec<_> =
                self.x[row * inputs..][..inputs].iter().map(|value| f64::from(*value)).collect();
            if self.is_normed() {
                normalize(&mut x, &self.norm);
            }
            let product = |column: usize| -> f64 {
                let weights = &self.weight[column * inputs..][..inputs];
                x.iter().zip(weights).map(|(x, weight)| x * f64::from(*weight)).sum()
            };
            let with_bias = |column| product(column) + f64::from(self.bias[column]);
            let exact = match self.around {
                Around::Nothing | Around::Norm => product(column),
                Around::Sum => with_bias(column) + f64::from(self.plus[row * width + column]),
                Around::Gated => with_bias(column) * gelu(with_bias(column + width)),
            };
            worst = worst.max((f64::from(results[row * width + column]) - exact).abs());
            largest = largest.max(exact.abs());
        }
        worst / largest
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of channels")]
fn normalize(x: &mut [f64], norm: &[Vec<f32>; 2]) {
    let count = x.len() as f64;
    let mean = x.iter().sum::<f64>() / count;
    let variance = x.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let root = (variance + f64::from(EPSILON)).sqrt();
    for (x, (weight, bias)) in x.iter_mut().zip(norm[0].iter().zip(&norm[1])) {
        *x = (*x - mean) / root * f64::from(*weight) + f64::from(*bias);
    }
}

/// x Φ(x), by Simpson's rule.
fn gelu(x: f64) -> f64 {
    let width = x / 200.0;
    let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let inner: f64 =
        (1..200).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * density(f64::from(i) * width)).sum();
    x * (0.5 + (density(0.0) + inner + density(x)) * width / 3.0)
}
