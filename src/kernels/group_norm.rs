//! Group norm, and `SiLU` after it: one pass for the mean and the variance, and one that writes the results.
//!
//! ONNX Runtime has no kernel for it on a CPU. In the operators that it has, it takes five passes over an image, through memory.
//!
//! The order of all sums depends on a group's size alone, and products are rounded before they are added. So every processor,
//! every batch and every number of threads give the same results.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use std::sync::{Mutex, PoisonError};

use super::convolution::Threads;
use super::level::{Level, at_each_level};
use super::silu::silu;

/// Values whose mean and variance are found together: 16 KiB, which stay in the first cache for the second.
const PIECE: usize = 4096;
/// Sums side by side, so that none waits for the one before.
const SUMS: usize = 64;

/// The tensors of a group norm.
#[derive(Clone, Copy)]
pub struct GroupNorm<'a> {
    pub groups: usize,
    /// A multiple of the groups.
    pub channels: usize,
    /// What is added to a variance.
    pub epsilon: f32,
    pub silu: bool,
    /// `[batch][channels][pixels]`
    pub input: &'a [f32],
    /// `[channels]`
    pub weight: &'a [f32],
    /// `[channels]`
    pub bias: &'a [f32],
}

/// One group of one image.
struct Group<'a> {
    input: &'a [f32],
    output: &'a mut [f32],
    /// Of its channels.
    weight: &'a [f32],
    bias: &'a [f32],
}

impl GroupNorm<'_> {
    /// Writes `output`, as large as the input. `pixels`: of a channel. The error says which tensor has another size than the
    /// others.
    pub fn run(
        &self,
        level: Level,
        pixels: usize,
        output: &mut [f32],
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let Self { groups, channels, input, weight, bias, .. } = *self;
        if groups == 0 || channels == 0 || !channels.is_multiple_of(groups) {
            return Err("the channels are no multiple of the groups");
        }
        if weight.len() != channels || bias.len() != channels {
            return Err("the weight or the bias has another size");
        }
        if input.len() != output.len() {
            return Err("the output has another size");
        }
        if input.is_empty() {
            return Ok(());
        }
        if channels.checked_mul(pixels).is_none_or(|image| image == 0 || !input.len().is_multiple_of(image)) {
            return Err("the input has another size");
        }
        let of_group = channels / groups;
        let parameters = weight.chunks(of_group).zip(bias.chunks(of_group)).cycle();
        let size = of_group * pixels;
        let tasks: Vec<_> = input
            .chunks(size)
            .zip(output.chunks_mut(size))
            .zip(parameters)
            .map(|((input, output), (weight, bias))| Mutex::new(Group { input, output, weight, bias }))
            .collect();
        threads.each(tasks.len(), &|task, _| {
            let mut group = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            normalise(level, &mut group, self.epsilon, self.silu);
        });
        Ok(())
    }
}

at_each_level! {
    /// Writes a group's results.
    normalise(group: &mut Group<'_>, epsilon: f32, silu: bool) = normalise_group
}

#[inline(always)]
fn normalise_group(group: &mut Group<'_>, epsilon: f32, with_silu: bool) {
    let (mean, variance) = moments(group.input);
    let inverse = (variance + f64::from(epsilon)).sqrt().recip();
    // Taken from a value first, so that a large mean costs no digits.
    let middle = single(mean);
    let pixels = group.input.len() / group.weight.len();
    let channels = group.input.chunks(pixels).zip(group.output.chunks_mut(pixels));
    for ((input, output), (weight, bias)) in channels.zip(group.weight.iter().zip(group.bias)) {
        let scale = f64::from(*weight) * inverse;
        let shift = single(f64::from(*bias) - (mean - f64::from(middle)) * scale);
        let scale = single(scale);
        if with_silu {
            for (result, value) in output.iter_mut().zip(input) {
                *result = silu((value - middle) * scale + shift);
            }
        } else {
            for (result, value) in output.iter_mut().zip(input) {
                *result = (value - middle) * scale + shift;
            }
        }
    }
}

/// The mean and the variance: those of pieces, put together (Chan, Golub and `LeVeque`, "Updating Formulae and a Pairwise
/// Algorithm for Computing Sample Variances", 1979).
#[inline(always)]
fn moments(values: &[f32]) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for piece in values.chunks(PIECE) {
        let size = as_float(piece.len());
        let of_piece = sum(piece, |value| value) / size;
        let middle = single(of_piece);
        let difference = of_piece - mean;
        squares += sum(piece, |value| (value - middle) * (value - middle))
            + difference * difference * count * size / (count + size);
        mean += difference * size / (count + size);
        count += size;
    }
    (mean, squares / count)
}

#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f64 {
    let mut sums = [0.0; SUMS];
    let (chunks, rest) = values.as_chunks::<SUMS>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += of(*value);
    }
    sums.iter().map(|sum| f64::from(*sum)).sum()
}

#[expect(clippy::cast_possible_truncation, reason = "of float32 values, to be used with them")]
fn single(value: f64) -> f32 {
    value as f32
}

#[expect(clippy::cast_precision_loss, reason = "a count of values in memory")]
fn as_float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
