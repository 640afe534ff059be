//! Our attention against ONNX Runtime's `MultiHeadAttention`.
//!
//! The errors, relative to the largest value, are those of some queries against float64.

use ndarray::Array4;
use ort::session::Session;
use stablehand::kernels::Level;

use crate::onnx::{Graph, whole};
use crate::{Bench, Totals, random, row, times_of};

/// Batch, queries, keys, heads, channels of a head; how many a step or a decode has.
const SHAPES: [([usize; 5], u16); 9] = [
    ([2, 4096, 4096, 8, 40], 5),
    ([2, 1024, 1024, 8, 80], 5),
    ([2, 256, 256, 8, 160], 5),
    ([2, 64, 64, 8, 160], 1),
    ([2, 4096, 77, 8, 40], 5),
    ([2, 1024, 77, 8, 80], 5),
    ([2, 256, 77, 8, 160], 5),
    ([2, 64, 77, 8, 160], 1),
    ([1, 4096, 4096, 1, 512], 1),
];
/// Queries and keys are so much larger than the values, so that a few keys have most of the weight.
const LARGER: f32 = 2.5;

/// What an attention is of.
struct Case {
    /// As in [`SHAPES`].
    sizes: [usize; 5],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

pub fn table(bench: &Bench<'_>) -> ort::Result<()> {
    bench.head("b×n×m heads×channels, count", "MultiHeadAtt.");
    let mut totals = Totals(Vec::new());
    for (sizes, count) in SHAPES {
        let [batch, queries, keys, heads, of_head] = sizes;
        let channels = heads * of_head;
        let larger = |values: Vec<f32>| values.iter().map(|value| value * LARGER).collect();
        let case = Case {
            sizes,
            q: larger(random(batch * queries * channels, 1)),
            k: larger(random(batch * keys * channels, 2)),
            v: random(batch * keys * channels, 3),
        };
        let mut sessions = vec![case.session(bench, None)?];
        for level in &bench.levels {
            sessions.push(case.session(bench, Some(*level))?);
        }
        let x = Array4::from_shape_vec((1, batch, queries, channels), case.q.clone()).expect("as many");
        let mut errors = Vec::new();
        let times = times_of(&mut sessions, &x, |_, results| errors.push(case.error(results)))?;
        #[expect(clippy::cast_precision_loss, reason = "to show")]
        let work = 4.0 * (batch * queries * keys * channels) as f64;
        row(&format!("{batch}×{queries}×{keys} {heads}×{of_head}, {count}"), work, &times, &errors);
        totals.add(&times, count);
    }
    totals.print();
    Ok(())
}

impl Case {
    fn session(&self, bench: &Bench<'_>, level: Option<Level>) -> ort::Result<Session> {
        let [batch, queries, keys, heads, of_head] = self.sizes;
        let channels = heads * of_head;
        let mut graph = Graph::default();
        graph.shape("rows", &[batch, queries, channels].map(|size| i64::try_from(size).expect("small")));
        graph.node("Reshape", "", &["x", "rows"], "q", &[]);
        graph.floats("k", &[batch, keys, channels], &self.k);
        graph.floats("v", &[batch, keys, channels], &self.v);
        let (operator, domain, name) = match level {
            Some(_) => ("Attention", "stablehand", "heads"),
            None => ("MultiHeadAttention", "com.microsoft", "num_heads"),
        };
        graph.node(operator, domain, &["q", "k", "v"], "a", &[whole(name, heads)]);
        let shape = [1, batch, queries, channels];
        graph.shape("image", &shape.map(|size| i64::try_from(size).expect("small")));
        graph.node("Reshape", "", &["a", "image"], "y", &[]);
        graph.session(bench.environment, shape, shape, bench.threads, level)
    }

    /// The largest error of some queries, relative to their largest value.
    fn error(&self, results: &[f32]) -> f64 {
        let [batch, queries, keys, heads, of_head] = self.sizes;
        let channels = heads * of_head;
        let (mut worst, mut largest) = (0_f64, 0_f64);
        for sample in 0..40 {
            let (image, query, head) = (sample % batch, sample * 7919 % queries, sample % heads);
            let of = |row: usize| row * channels + head * of_head..row * channels + (head + 1) * of_head;
            let mine = of(image * queries + query);
            let product = |key: &[f32]| -> f64 {
                self.q[mine.clone()].iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
            };
            let rows = image * keys..(image + 1) * keys;
            #[expect(clippy::cast_precision_loss, reason = "a count of channels")]
            let root = (of_head as f64).sqrt();
            let scores: Vec<_> = rows.clone().map(|key| product(&self.k[of(key)]) / root).collect();
            let most = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<_> = scores.iter().map(|score| (score - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (channel, result) in results[mine].iter().enumerate() {
                let values = rows.clone().map(|key| f64::from(self.v[of(key).start + channel]));
                let exact =
                    weights.iter().zip(values).map(|(weight, value)| weight * value).sum::<f64>() / sum;
                worst = worst.max((f64::from(*result) - exact).abs());
                largest = largest.max(exact.abs());
            }
        }
        worst / largest
    }
}
