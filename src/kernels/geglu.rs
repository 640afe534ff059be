//! GEGLU: one half of a linear layer's results, times the GELU of the other half (Shazeer, "GLU Variants Improve Transformer",
//! 2020). With the layer's bias, in one pass. In ONNX's own operators it takes four, through memory.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use std::sync::{Mutex, PoisonError};

use super::convolution::Threads;
use super::gelu::gelu;
use super::level::{Level, at_each_level};

/// Rows of a task.
const ROWS: usize = 16;

/// The tensors of a GEGLU.
#[derive(Clone, Copy)]
pub struct GeGlu<'a> {
    /// Values of a row of results.
    pub width: usize,
    /// `[rows][2 · width]`: what is multiplied, then what goes through GELU.
    pub input: &'a [f32],
    /// `[2 · width]`, to add to each row.
    pub bias: &'a [f32],
}

impl GeGlu<'_> {
    /// Writes `output`: `[rows][width]`. The error says which tensor has another size than the others.
    pub fn run(&self, level: Level, output: &mut [f32], threads: &Threads<'_>) -> Result<(), &'static str> {
        let Self { width, input, bias } = *self;
        if width == 0 || bias.len() != 2 * width {
            return Err("the bias has another size");
        }
        if !output.len().is_multiple_of(width) || input.len() / 2 != output.len() || input.len() % 2 == 1 {
            return Err("the input has another size");
        }
        let tasks: Vec<_> =
            input.chunks(2 * width * ROWS).zip(output.chunks_mut(width * ROWS)).map(Mutex::new).collect();
        threads.each(tasks.len(), &|task, _| {
            let mut task = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            rows(level, task.0, task.1, bias);
        });
        Ok(())
    }
}

at_each_level! {
    /// Writes some rows of results.
    rows(input: &[f32], output: &mut [f32], bias: &[f32]) = each_row
}

#[inline(always)]
fn each_row(input: &[f32], output: &mut [f32], bias: &[f32]) {
    let width = bias.len() / 2;
    let (of_values, of_gates) = bias.split_at(width);
    for (input, output) in input.chunks(2 * width).zip(output.chunks_mut(width)) {
        let (values, gates) = input.split_at(width);
        let values = values.iter().zip(of_values);
        let gates = gates.iter().zip(of_gates);
        for (result, ((value, of_value), (gate, of_gate))) in output.iter_mut().zip(values.zip(gates)) {
            *result = (value + of_value) * gelu(gate + of_gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::tests::{random, spawn};

    fn run(geglu: &GeGlu<'_>, level: Level) -> Result<Vec<f32>, &'static str> {
        let mut output = vec![f32::NAN; geglu.input.len() / 2];
        geglu.run(level, &mut output, &Threads { count: 3, run: &spawn })?;
        Ok(output)
    }

    #[test]
    fn one_half_is_multiplied_by_the_gelu_of_the_other() {
        let input: Vec<_> = random(2 * 37 * 50, 1).iter().map(|value| 4.0 * value).collect();
        let bias = random(2 * 37, 2);
        let geglu = GeGlu { width: 37, input: &input, bias: &bias };
        let results = run(&geglu, Level::Baseline).unwrap();
        for (row, (input, results)) in input.chunks(2 * 37).zip(results.chunks(37)).enumerate() {
            for column in 0..37 {
                let expected = (input[column] + bias[column]) * gelu(input[column + 37] + bias[column + 37]);
                let result = results[column];
                assert!((result - expected).abs() < 1e-6, "{row}, {column}: {result} in place of {expected}");
            }
        }
        for level in Level::all() {
            assert!(run(&geglu, level).unwrap() == results, "{level:?} has the same bits");
        }
    }

    #[test]
    fn tensors_of_other_sizes_are_refused() {
        let (input, bias) = ([1.0; 24], [1.0; 6]);
        let right = GeGlu { width: 3, input: &input, bias: &bias };
        run(&right, Level::best()).unwrap();
        run(&GeGlu { input: &[], ..right }, Level::best()).unwrap();
        for wrong in [
            GeGlu { width: 0, bias: &[], ..right },
            GeGlu { width: 4, ..right },
            GeGlu { bias: &bias[1..], ..right },
            GeGlu { input: &input[1..], ..right },
            GeGlu { input: &input[2..], ..right },
        ] {
            assert!(run(&wrong, Level::best()).is_err());
        }
    }
}
