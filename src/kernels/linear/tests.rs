//! Against sums in float64, at every level.

use super::*;
use crate::kernels::gelu::gelu;
use crate::kernels::layer::Norm;
use crate::kernels::tests::{random, spawn};

/// A layer's tensors, with the weights in the order [outputs][inputs].
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    is_gated: bool,
    input: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    plus: Vec<f32>,
    norm: [Vec<f32>; 2],
}

impl Case {
    fn new([rows, inputs, outputs]: [usize; 3], is_gated: bool) -> Self {
        Self {
            rows,
            inputs,
            outputs,
            is_gated,
            input: random(rows * inputs, 1),
            weights: random(inputs * outputs, 2),
            bias: random(outputs, 3),
            plus: random(rows * outputs / if is_gated { 2 } else { 1 }, 4),
            norm: [random(inputs, 5), random(inputs, 6)],
        }
    }

    fn in_blocks(&self) -> Vec<f32> {
        let blocks = self.weights.chunks(LANES * self.inputs);
        let place = |at: usize| at % LANES * self.inputs + at / LANES;
        blocks.flat_map(|block| (0..block.len()).map(move |at| block[place(at)])).collect()
    }

    /// The layer with all, or with nothing, around its products.
    fn layer(&self, has_all: bool) -> Layer<'_> {
        let norm = Norm { weight: &self.norm[0], bias: &self.norm[1], epsilon: 1e-5 };
        Layer {
            inputs: self.inputs,
            outputs: self.outputs,
            input: &self.input,
            norm: has_all.then_some(norm),
            bias: has_all.then_some(&self.bias),
            plus: has_all.then_some(&self.plus),
            is_gated: self.is_gated,
        }
    }

    fn expected(&self, has_all: bool) -> Vec<f64> {
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
        let mut results = Vec::new();
        for row in self.input.chunks(self.inputs) {
            let mut row = wide(row);
            if has_all {
                #[expect(clippy::cast_precision_loss, reason = "a count of channels")]
                let count = self.inputs as f64;
                let mean = row.iter().sum::<f64>() / count;
                let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
                for (value, (weight, bias)) in row.iter_mut().zip(self.norm[0].iter().zip(&self.norm[1])) {
                    *value =
                        (*value - mean) / (variance + 1e-5).sqrt() * f64::from(*weight) + f64::from(*bias);
                }
            }
            let mut products: Vec<f64> = self
                .weights
                .chunks(self.inputs)
                .map(|weights| wide(weights).iter().zip(&row).map(|(weight, value)| weight * value).sum())
                .collect();
            if has_all {
                products.iter_mut().zip(&self.bias).for_each(|(product, bias)| *product += f64::from(*bias));
            }
            if self.is_gated {
                let gates = products.split_off(self.outputs / 2);
                #[expect(clippy::cast_possible_truncation, reason = "its own tests are exact")]
                products
                    .iter_mut()
                    .zip(gates)
                    .for_each(|(value, gate)| *value *= f64::from(gelu(gate as f32)));
            }
            results.extend(products);
        }
        if has_all {
            results.iter_mut().zip(&self.plus).for_each(|(result, plus)| *result += f64::from(*plus));
        }
        results
    }
}

fn run(linear: &Linear<'_>, level: Level, threads: usize, scratch: &mut Scratch) -> Vec<f32> {
    let mut output = vec![f32::NAN; linear.layer.input.len() / linear.layer.inputs * linear.layer.width()];
    linear.run(level, &mut output, scratch, &Threads { count: threads, run: &spawn }).unwrap();
    output
}

#[test]
fn layers_are_right_whatever_is_around_them() {
    let mut scratch = Scratch::default();
    for (sizes, is_gated) in [
        ([1, 16, 16], false),
        ([5, 16, 48], false),
        ([7, 48, 32], true),
        ([13, 320, 64], false),
        ([110, 336, 96], true),
        // More inputs than are multiplied at once.
        ([26, 1296, 48], false),
        ([100, 2576, 32], true),
        // And several groups in a task.
        ([200, 1296, 1024], false),
    ] {
        let case = Case::new(sizes, is_gated);
        let weights = case.in_blocks();
        for has_all in [false, true] {
            let linear = Linear { layer: case.layer(has_all), weights: &weights };
            let expected = case.expected(has_all);
            let largest = expected.iter().fold(0_f64, |largest, value| largest.max(value.abs()));
            for level in Level::all() {
                let results = run(&linear, level, 2, &mut scratch);
                assert_eq!(results.len(), expected.len());
                for (place, (result, expected)) in results.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*result) - expected).abs() / largest;
                    assert!(error < 2e-6, "{sizes:?}, {is_gated}, {has_all}, {level:?}, {place}: {error}");
                }
            }
        }
    }
}

#[test]
fn threads_and_batches_change_no_bit() {
    let mut scratch = Scratch::default();
    for (sizes, is_gated) in [([200, 32, 80], false), ([97, 1312, 64], true), ([3, 64, 1024], false)] {
        let case = Case::new(sizes, is_gated);
        let weights = case.in_blocks();
        for level in Level::all() {
            let linear = Linear { layer: case.layer(true), weights: &weights };
            let expected = run(&linear, level, 1, &mut scratch);
            for threads in [2, 7] {
                assert!(
                    run(&linear, level, threads, &mut scratch) == expected,
                    "{level:?}, {threads} threads"
                );
            }
            let last = case.rows - 1;
            let width = linear.layer.width();
            let alone = Layer {
                input: &case.input[last * case.inputs..],
                plus: Some(&case.plus[last * width..]),
                ..linear.layer
            };
            let alone = run(&Linear { layer: alone, weights: &weights }, level, 2, &mut scratch);
            assert!(alone == expected[last * width..], "{level:?}: the last row by itself");
        }
    }
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let case = Case::new([2, 32, 64], true);
    let weights = case.in_blocks();
    let right = case.layer(true);
    let refused = |layer: Layer<'_>, weights: &[f32], outputs: usize| {
        let threads = Threads { count: 1, run: &|_, task| task(0) };
        let mut output = vec![0.0; outputs];
        let linear = Linear { layer, weights };
        linear.run(Level::best(), &mut output, &mut Scratch::default(), &threads).err().unwrap_or_default()
    };
    assert_eq!(refused(right, &weights, 64), "");
    for (layer, reason) in [
        (Layer { outputs: 0, ..right }, "outputs"),
        (Layer { outputs: 48, ..right }, "outputs"),
        (Layer { outputs: 40, is_gated: false, ..right }, "outputs"),
        (Layer { inputs: 0, ..right }, "input has"),
        (Layer { inputs: 24, ..right }, "input has"),
        (Layer { input: &case.input[32..], ..right }, "output has"),
        (Layer { inputs: 8, norm: None, ..right }, "output has"),
        (Layer { bias: Some(&case.bias[1..]), ..right }, "bias"),
        (Layer { plus: Some(&case.plus[1..]), ..right }, "added"),
        (Layer { norm: right.norm.map(|norm| Norm { weight: &norm.weight[1..], ..norm }), ..right }, "norm"),
        (Layer { norm: right.norm.map(|norm| Norm { bias: &[], ..norm }), ..right }, "norm"),
    ] {
        let error = refused(layer, &weights, 64);
        assert!(error.contains(reason), "{error} in place of {reason}");
    }
    assert!(refused(right, &weights[1..], 64).contains("weights"));
    assert!(refused(right, &weights, 63).contains("added"));
    let narrow = Layer { inputs: 8, norm: None, plus: None, ..right };
    assert!(refused(narrow, &weights[..8 * 64], 8 * 32).contains("multiple of 16"));
    // Nothing to do is no error.
    let none = Layer { input: &[], plus: Some(&[]), ..right };
    assert_eq!(refused(none, &weights, 0), "");
}
