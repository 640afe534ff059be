//! Against numpy's layer of `tests/golden/linear_int8.py`, and each way to multiply against the others.

use serde_json::Value;

use super::*;
use crate::kernels::gelu::gelu;
use crate::kernels::layer::Norm;
use crate::kernels::tests::spawn;

/// A layer with nothing around its products.
fn plain<'a>(inputs: usize, outputs: usize, input: &'a [f32], weights: &'a [u8]) -> LinearInt8<'a> {
    let layer = Layer { inputs, outputs, input, norm: None, bias: None, plus: None, is_gated: false };
    LinearInt8 { layer, weights }
}

fn run(linear: &LinearInt8<'_>, dot: Dot, threads: usize, scratch: &mut Scratch) -> Vec<f32> {
    let mut output = vec![f32::NAN; linear.layer.input.len() / linear.layer.inputs * linear.layer.width()];
    let with = (dot, Level::best());
    linear.run(with, &mut output, scratch, &Threads { count: threads, run: &spawn }).unwrap();
    output
}

/// Weights of any bytes, with scales from 0.5 to 1.
fn weights(inputs: usize, outputs: usize) -> Vec<u8> {
    let mut weights: Vec<u8> = (0..weight_bytes(inputs, outputs).unwrap())
        .map(|index| u8::try_from(index * 7919 % 255 + 1).unwrap())
        .collect();
    for block in weights.chunks_mut(HEAD + inputs * COLUMNS) {
        for (column, scale) in block[..HEAD].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *scale = (0.5 + f32::from(u8::try_from(column).unwrap()) / 32.0).to_le_bytes();
        }
    }
    weights
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn rows(rows: usize, inputs: usize) -> Vec<f32> {
    (0..rows * inputs).map(|index| (index as f32 * 0.37).sin() * 3.0).collect()
}

#[test]
fn a_layer_gives_what_numpy_computes() {
    let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/linear_int8.json")).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "numpy's values are f32")]
    let numbers = |name: &str| -> Vec<f32> {
        golden[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let size = |name: &str| usize::try_from(golden[name].as_u64().unwrap()).unwrap();
    let packed = golden["packed"].as_array().unwrap().iter();
    let weights: Vec<u8> = packed.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect();
    let (input, expected) = (numbers("input"), numbers("output"));
    let outputs = size("outputs");
    let layer = plain(size("inputs"), outputs, &input, &weights);
    for dot in Dot::all() {
        let output = run(&layer, dot, 1, &mut Scratch::default());
        for (row, (output, expected)) in output.chunks(outputs).zip(expected.chunks(outputs)).enumerate() {
            let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (output, expected) in output.iter().zip(expected) {
                // The sums are exact; the two scales are rounded.
                assert!(
                    (output - expected).abs() <= 1e-6 * largest,
                    "{dot:?}, row {row}: {output}, {expected}"
                );
            }
        }
    }
}

#[test]
fn all_processors_threads_and_batches_give_the_same_bits() {
    let mut scratch = Scratch::default();
    for (count, inputs, outputs) in [(1, 4, 16), (5, 8, 48), (97, 64, 32), (200, 12, 16), (25, 320, 64)] {
        let (input, weights) = (rows(count, inputs), weights(inputs, outputs));
        let layer = plain(inputs, outputs, &input, &weights);
        let expected = run(&layer, Dot::Portable, 1, &mut scratch);
        assert!(expected.iter().all(|value| value.is_finite()) && expected.iter().any(|value| *value != 0.0));
        for dot in Dot::all() {
            for threads in [1, 2, 7] {
                let output = run(&layer, dot, threads, &mut scratch);
                assert_eq!(output, expected, "{dot:?}, {threads} threads, {count} × {inputs} × {outputs}");
            }
            // The last row by itself.
            let alone = plain(inputs, outputs, &input[(count - 1) * inputs..], &weights);
            assert_eq!(run(&alone, dot, 2, &mut scratch), expected[(count - 1) * outputs..]);
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let (inputs, outputs) = (MOST_INPUTS, 16);
    let mut weights = vec![255; weight_bytes(inputs, outputs).unwrap()];
    weights[..HEAD].as_chunks_mut::<4>().0.fill(1.0_f32.to_le_bytes());
    for (value, expected) in [(1.0_f32, 127.0 * 65536.0), (-1.0, -127.0 * 65536.0)] {
        let input = vec![value; inputs];
        let layer = plain(inputs, outputs, &input, &weights);
        for dot in Dot::all() {
            for output in run(&layer, dot, 1, &mut Scratch::default()) {
                assert!((output - expected).abs() < 1.0, "{dot:?}: {output}");
            }
        }
    }
}

#[test]
fn what_is_no_number_makes_its_row_none_and_no_other() {
    let weights = weights(8, 16);
    for value in [f32::NAN, f32::INFINITY] {
        let mut input = rows(3, 8);
        input[9] = value;
        let layer = plain(8, 16, &input, &weights);
        for dot in Dot::all() {
            let output = run(&layer, dot, 1, &mut Scratch::default());
            let is_number = |row: &[f32]| row.iter().all(|value| value.is_finite());
            assert!(is_number(&output[..16]) && is_number(&output[32..]));
            assert!(output[16..32].iter().all(|value| value.is_nan()), "{dot:?}");
        }
    }
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let (input, weights) = (rows(2, 8), weights(8, 16));
    let layer = plain(8, 16, &input, &weights);
    let refused = |linear: &LinearInt8<'_>, outputs: usize| {
        let threads = Threads { count: 1, run: &|_, task| task(0) };
        let mut output = vec![0.0; outputs];
        let with = (Dot::Portable, Level::Baseline);
        linear.run(with, &mut output, &mut Scratch::default(), &threads).unwrap_err()
    };
    assert!(refused(&plain(2, 16, &input[..4], &weights), 32).contains("inputs"));
    assert!(refused(&plain(1 << 20, 16, &vec![0.0; 2 << 20], &weights), 32).contains("inputs"));
    assert!(refused(&plain(8, 15, &input, &weights), 32).contains("outputs"));
    assert!(refused(&plain(8, 16, &input[1..], &weights), 32).contains("input has"));
    assert!(refused(&layer, 31).contains("output has"));
    assert!(refused(&plain(8, 16, &input, &weights[1..]), 32).contains("weights"));
    // Nothing to do is no error.
    let threads = Threads { count: 2, run: &|_, _| () };
    let none = plain(8, 16, &[], &weights);
    none.run((Dot::best(), Level::best()), &mut [], &mut Scratch::default(), &threads).unwrap();
}

#[test]
fn what_is_around_the_products_is_done_in_float32() {
    let (inputs, outputs, count) = (64, 96, 30);
    let (input, weights) = (rows(count, inputs), weights(inputs, outputs));
    let (bias, plus) = (rows(1, outputs), rows(count, outputs / 2));
    let norm = Norm { weight: &bias[..inputs], bias: &plus[..inputs], epsilon: 1e-5 };
    let gated = Layer {
        norm: Some(norm),
        bias: Some(&bias),
        plus: Some(&plus),
        is_gated: true,
        ..plain(inputs, outputs, &input, &weights).layer
    };
    // The same in steps.
    let mut normed = Vec::new();
    for row in 0..count {
        normed.extend_from_slice(gated.row(Level::Baseline, row, &mut Vec::new()));
    }
    assert!(normed != input);
    let products = run(&plain(inputs, outputs, &normed, &weights), Dot::Portable, 1, &mut Scratch::default());
    let mut expected = plus.clone();
    for (results, products) in expected.chunks_mut(outputs / 2).zip(products.chunks(outputs)) {
        for (column, result) in results.iter_mut().enumerate() {
            let gate = outputs / 2 + column;
            *result += (products[column] + bias[column]) * gelu(products[gate] + bias[gate]);
        }
    }
    let results =
        run(&LinearInt8 { layer: gated, weights: &weights }, Dot::best(), 3, &mut Scratch::default());
    assert_eq!(results, expected);
}
