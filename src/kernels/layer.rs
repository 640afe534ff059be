//! What linear layers have in common, whatever their weights are: a layer norm before the products, and what is done with the
//! products afterwards. So no tensor in between is ever written.
//!
//! A gated layer is GEGLU (Shazeer, "GLU Variants Improve Transformer", 2020): one half of the products times the GELU of the
//! other. A group is two neighbouring blocks of sixteen products. In a gated layer it is one block of each half.

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::convolution::Threads;
use super::gelu::gelu;
use super::level::{Level, at_each_level};
use super::vector::{LANES, Lane, ZERO};

/// Products of a row that are worked on together.
pub type Group = [Lane; 2];
/// Tasks for each thread at least, so that none waits long for the last.
const TASKS: usize = 6;
/// About the most bytes of a task's weights. They stay in the third cache.
const SHARE: usize = 4 << 20;
/// Rows whose results are made at once.
const AT_ONCE: usize = 24;

/// The tensors of a layer but for its weights, and its sizes.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// Values of a row.
    pub inputs: usize,
    /// Products of a row: a multiple of 16, or of 32 where it is gated.
    pub outputs: usize,
    /// `[rows][inputs]`
    pub input: &'a [f32],
    /// Of the inputs.
    pub norm: Option<Norm<'a>>,
    /// `[outputs]`, to add to the products of each row.
    pub bias: Option<&'a [f32]>,
    /// In the shape of the results, to add to them.
    pub plus: Option<&'a [f32]>,
    pub is_gated: bool,
}

/// A layer norm.
#[derive(Clone, Copy)]
pub struct Norm<'a> {
    /// `[inputs]`
    pub weight: &'a [f32],
    /// `[inputs]`
    pub bias: &'a [f32],
    pub epsilon: f32,
}

/// Memory of each thread that later calls use again.
#[derive(Default)]
pub struct Scratch<S>(Vec<Mutex<S>>);

/// Rows and groups that one thread does at a time, with where its results go: a slice for each row.
pub struct Task<'a> {
    pub rows: Range<usize>,
    pub groups: Range<usize>,
    output: Vec<&'a mut [f32]>,
}

impl Layer<'_> {
    /// Says which tensor has another size than the others.
    pub fn check(&self, output: &[f32]) -> Result<(), &'static str> {
        let Self { inputs, outputs, input, norm, bias, plus, is_gated } = *self;
        let is = |values: Option<&[f32]>, length| values.is_none_or(|values| values.len() == length);
        let of_group = if is_gated { 2 * LANES } else { LANES };
        for (is_right, what) in [
            (
                outputs > 0 && outputs.is_multiple_of(of_group),
                "the outputs are no multiple of 16, or of 32 if gated",
            ),
            (inputs > 0 && input.len().is_multiple_of(inputs), "the input has another size"),
            (is(norm.map(|norm| norm.weight), inputs), "the weight of the norm has another size"),
            (is(norm.map(|norm| norm.bias), inputs), "the bias of the norm has another size"),
            (is(bias, outputs), "the bias has another size"),
            (is(plus, output.len()), "what is added has another size"),
        ] {
            if !is_right {
                return Err(what);
            }
        }
        let count = (input.len() / inputs).checked_mul(self.width());
        if count == Some(output.len()) { Ok(()) } else { Err("the output has another size") }
    }

    /// Results of a row.
    pub fn width(&self) -> usize {
        if self.is_gated { self.outputs / 2 } else { self.outputs }
    }

    /// The blocks of sixteen products of a group. The last group may have only one, twice.
    pub fn blocks(&self, group: usize) -> [usize; 2] {
        let blocks = self.outputs / LANES;
        if self.is_gated { [group, blocks / 2 + group] } else { [2 * group, (2 * group + 1).min(blocks - 1)] }
    }

    /// Results of a row in a group.
    fn columns(&self) -> usize {
        if self.is_gated { LANES } else { 2 * LANES }
    }

    /// Lets threads do all tasks of so many rows each. Where there are few rows, or where the weights have many bytes, a task has
    /// not all groups. Tasks with the same groups follow each other, so that their weights come from memory once.
    pub fn each<S: Default + Send>(
        &self,
        output: &mut [f32],
        (rows, bytes): (usize, usize),
        scratch: &mut Scratch<S>,
        threads: &Threads<'_>,
        work: impl Fn(&mut Task<'_>, &mut S) + Sync,
    ) {
        if output.is_empty() {
            return;
        }
        let tasks: Vec<_> =
            self.tasks(output, rows, bytes, threads.count).into_iter().map(Mutex::new).collect();
        scratch.0.resize_with(threads.count.max(scratch.0.len()), Mutex::default);
        threads.each(tasks.len(), &|task, thread| {
            let mut task = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut task, &mut scratch.0[thread].lock().unwrap_or_else(PoisonError::into_inner));
        });
    }

    fn tasks<'a>(&self, output: &'a mut [f32], rows: usize, bytes: usize, threads: usize) -> Vec<Task<'a>> {
        let (width, groups) = (self.width(), self.width().div_ceil(self.columns()));
        let of_rows = (output.len() / width).div_ceil(rows).max(1);
        let shares = (TASKS * threads).div_ceil(of_rows).max(bytes.div_ceil(SHARE)).min(groups);
        let of_share = groups.div_ceil(shares);
        let mut tasks: Vec<Task<'a>> = Vec::with_capacity(of_rows * shares);
        for (first, output) in output.chunks_mut(rows * width).enumerate() {
            let rows = first * rows..first * rows + output.len() / width;
            let before = tasks.len();
            tasks.extend((0..groups).step_by(of_share).map(|start| Task {
                rows: rows.clone(),
                groups: start..groups.min(start + of_share),
                output: Vec::with_capacity(rows.len()),
            }));
            for row in output.chunks_mut(width) {
                for (share, row) in row.chunks_mut(of_share * self.columns()).enumerate() {
                    tasks[before + share].output.push(row);
                }
            }
        }
        tasks.sort_by_key(|task| task.groups.start);
        tasks
    }

    /// A row as it is multiplied: normed, if there is a norm. `room` is for that.
    pub fn row<'r>(&'r self, level: Level, index: usize, room: &'r mut Vec<f32>) -> &'r [f32] {
        let row = &self.input[index * self.inputs..][..self.inputs];
        let Some(norm) = &self.norm else { return row };
        room.resize(self.inputs, 0.0);
        normalize(level, norm, row, room);
        room
    }
}

impl Task<'_> {
    /// Writes the results of some rows, which are the task's from `first` on.
    pub fn finish(
        &mut self,
        level: Level,
        layer: &Layer<'_>,
        first: usize,
        group: usize,
        products: &[Group],
    ) {
        let at = (group - self.groups.start) * layer.columns();
        let rows = &mut self.output[first..first + products.len()];
        finish(level, layer, (self.rows.start + first, group), products, (at, rows));
    }
}

at_each_level! {
    finish(layer: &Layer<'_>, from: (usize, usize), products: &[Group], to: (usize, &mut [&mut [f32]])) = finish_rows
}

#[inline(always)]
fn finish_rows(
    layer: &Layer<'_>,
    (first, group): (usize, usize),
    products: &[Group],
    (at, rows): (usize, &mut [&mut [f32]]),
) {
    let bias = layer.blocks(group).map(|block| layer.bias.map_or(ZERO, |bias| *lane(&bias[block * LANES..])));
    let places = (first..).map(|row| row * layer.width() + group * layer.columns());
    let rows = places.zip(rows.iter_mut().map(|row| &mut row[at..]));
    if layer.is_gated {
        finish_gated(layer, &bias, products, rows);
        return;
    }
    for ((place, results), products) in rows.zip(products) {
        for block in 0..results.len().min(2 * LANES) / LANES {
            write(layer, place, results, block, sum(&products[block], &bias[block]));
        }
    }
}

#[inline(always)]
fn finish_gated<'a>(
    layer: &Layer<'_>,
    [bias, of_gates]: &[Lane; 2],
    products: &[Group],
    mut rows: impl Iterator<Item = (usize, &'a mut [f32])>,
) {
    for products in products.chunks(AT_ONCE) {
        let mut gates = [ZERO; AT_ONCE];
        let gates = &mut gates[..products.len()];
        for (gate, [_, product]) in gates.iter_mut().zip(products) {
            *gate = sum(product, of_gates);
        }
        // One long loop, of which the compiler makes vectors side by side.
        for gate in gates.as_flattened_mut() {
            *gate = gelu(*gate);
        }
        for ((gate, [product, _]), (place, results)) in gates.iter().zip(products).zip(&mut rows) {
            let value = sum(product, bias);
            write(layer, place, results, 0, std::array::from_fn(|l| value[l] * gate[l]));
        }
    }
}

/// Writes a block of a row's results, which starts at `place` in the layer's.
#[inline(always)]
fn write(layer: &Layer<'_>, place: usize, results: &mut [f32], block: usize, values: Lane) {
    let at = block * LANES;
    let values = layer.plus.map_or(values, |plus| sum(&values, lane(&plus[place + at..])));
    results[at..at + LANES].copy_from_slice(&values);
}

#[inline(always)]
fn lane(values: &[f32]) -> &Lane {
    values.first_chunk().expect("layers are checked")
}

// With arrays as results and not in place, the compiler makes vectors.
#[inline(always)]
fn sum(values: &Lane, others: &Lane) -> Lane {
    std::array::from_fn(|l| values[l] + others[l])
}

at_each_level! {
    normalize(norm: &Norm<'_>, row: &[f32], results: &mut [f32]) = normalize_row
}

#[inline(always)]
fn normalize_row(norm: &Norm<'_>, row: &[f32], results: &mut [f32]) {
    let mean = mean(row, |value| value);
    for (result, value) in results.iter_mut().zip(row) {
        *result = value - mean;
    }
    let variance = self::mean(results, |value| value * value);
    let factor = 1.0 / (variance + norm.epsilon).sqrt();
    for (result, (weight, bias)) in results.iter_mut().zip(norm.weight.iter().zip(norm.bias)) {
        *result = *result * factor * weight + bias;
    }
}

/// By many sums side by side: they lose fewer digits than one, and take vectors.
#[inline(always)]
#[expect(clippy::cast_precision_loss, reason = "a count of channels")]
fn mean(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    const SUMS: usize = 4 * LANES;
    let mut sums = [0.0; SUMS];
    let (chunks, rest) = values.as_chunks::<SUMS>();
    for chunk in chunks {
        sums = std::array::from_fn(|l| sums[l] + of(chunk[l]));
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += of(*value);
    }
    let mut total: Lane = std::array::from_fn(|l| (sums[l] + sums[l + 16]) + (sums[l + 32] + sums[l + 48]));
    for half in [8, 4, 2, 1] {
        total = std::array::from_fn(|l| if l < half { total[l] + total[l + half] } else { 0.0 });
    }
    total[0] / values.len() as f32
}
