//! A linear layer in int8: the weights are quantised when the model is loaded, the inputs here, each row by itself.
//!
//! So a row's result depends on nothing but the row: not on the batch, the threads or the processor. Threads take some rows
//! and some output channels each. They quantise the rows, and then go through the weights in blocks of sixteen channels.
//!
//! A product of `value · weight` is `scale_of_row · scale_of_channel · Σ number · (weight + 128)`, less 128 times the sum of
//! the row's numbers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::convolution::Threads;
#[cfg(target_arch = "x86_64")]
use super::dot::{Avx2, Avx512Vnni, AvxVnni};
use super::dot::{COLUMNS, DEPTH, Dot, Multiply, Portable, Sums};

/// Rows of a task. Each task reads all the weights of its channels, and more rows would not fit into the cache.
const ROWS: usize = 96;
/// Tasks for each thread at least, so that none waits long for the last.
const TASKS: usize = 3;
/// What is added to a weight.
const OFFSET: i32 = 128;
/// The bytes of the scales that a block begins with.
const HEAD: usize = COLUMNS * size_of::<f32>();
/// With more, a sum might not fit into 32 bits.
const MOST_INPUTS: usize = 1 << 16;

/// The tensors of a layer.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    pub inputs: usize,
    pub outputs: usize,
    /// `[rows][inputs]`
    pub input: &'a [f32],
    /// `[outputs / 16]`, each 16 scales in float32 and `[inputs / 4][16][4]` unsigned bytes.
    pub weights: &'a [u8],
}

/// Memory that later calls use again.
#[derive(Default)]
pub struct LinearScratch(Vec<Mutex<OfThread>>);

/// What a thread quantises its rows into.
#[derive(Default)]
struct OfThread {
    numbers: Vec<i8>,
    /// The scale of each row, and what its sums begin with.
    rows: Vec<(f32, i32)>,
    quads: Vec<i32>,
    long_quads: Vec<i64>,
    short_quads: Vec<[i16; DEPTH]>,
}

/// Rows and blocks of output channels that one thread does at a time, with where its results go: a slice for each row.
struct Task<'a> {
    rows: Range<usize>,
    blocks: Range<usize>,
    output: Vec<&'a mut [f32]>,
}

/// The bytes of a layer's weights.
pub fn weight_bytes(inputs: usize, outputs: usize) -> Option<usize> {
    (outputs / COLUMNS).checked_mul(inputs.checked_mul(COLUMNS)?.checked_add(HEAD)?)
}

impl Linear<'_> {
    /// Writes `output`: `[rows][outputs]`. The error says which tensor has another size than the others.
    pub fn run(
        &self,
        dot: Dot,
        output: &mut [f32],
        scratch: &mut LinearScratch,
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let Self { inputs, outputs, input, weights } = *self;
        if inputs == 0 || !inputs.is_multiple_of(DEPTH) || inputs > MOST_INPUTS {
            return Err("the inputs are no multiple of 4 up to 65536");
        }
        if outputs == 0 || !outputs.is_multiple_of(COLUMNS) {
            return Err("the outputs are no multiple of 16");
        }
        if !input.len().is_multiple_of(inputs) {
            return Err("the input has another size");
        }
        let rows = input.len() / inputs;
        if rows.checked_mul(outputs) != Some(output.len()) {
            return Err("the output has another size");
        }
        if weight_bytes(inputs, outputs) != Some(weights.len()) {
            return Err("the weights have another size");
        }
        if output.is_empty() {
            return Ok(());
        }
        let tasks: Vec<_> = self.tasks(output, threads.count).into_iter().map(Mutex::new).collect();
        scratch.0.resize_with(threads.count.max(scratch.0.len()), Mutex::default);
        threads.each(tasks.len(), &|task, thread| {
            let mut task = tasks[task].lock().unwrap_or_else(PoisonError::into_inner);
            let mut room = scratch.0[thread].lock().unwrap_or_else(PoisonError::into_inner);
            let OfThread { numbers, rows, quads, long_quads, short_quads } = &mut *room;
            let room = (numbers, rows);
            match dot {
                Dot::Portable => self.finish::<Portable, 4>(&mut task, room, short_quads),
                #[cfg(target_arch = "x86_64")]
                Dot::Avx2 => self.finish::<Avx2, 6>(&mut task, room, long_quads),
                #[cfg(target_arch = "x86_64")]
                Dot::AvxVnni => self.finish::<AvxVnni, 6>(&mut task, room, quads),
                #[cfg(target_arch = "x86_64")]
                Dot::Avx512Vnni => self.finish::<Avx512Vnni, 24>(&mut task, room, quads),
            }
        });
        Ok(())
    }

    /// The tasks for so many threads: some rows each, and not all channels where there are few rows.
    fn tasks<'a>(&self, output: &'a mut [f32], threads: usize) -> Vec<Task<'a>> {
        let blocks = self.outputs / COLUMNS;
        let of_rows = (output.len() / self.outputs).div_ceil(ROWS).max(1);
        let shares = (TASKS * threads).div_ceil(of_rows).min(blocks);
        let of_share = blocks.div_ceil(shares);
        let mut tasks: Vec<Task<'a>> = Vec::with_capacity(of_rows * shares);
        for (first, output) in output.chunks_mut(ROWS * self.outputs).enumerate() {
            let rows = first * ROWS..first * ROWS + output.len() / self.outputs;
            let before = tasks.len();
            tasks.extend((0..blocks).step_by(of_share).map(|start| Task {
                rows: rows.clone(),
                blocks: start..blocks.min(start + of_share),
                output: Vec::with_capacity(rows.len()),
            }));
            for row in output.chunks_mut(self.outputs) {
                for (share, row) in row.chunks_mut(of_share * COLUMNS).enumerate() {
                    tasks[before + share].output.push(row);
                }
            }
        }
        tasks
    }

    #[expect(unsafe_code, reason = "calls of functions that need instructions")]
    fn finish<M: Multiply<T>, const T: usize>(
        &self,
        task: &mut Task<'_>,
        (numbers, scales): (&mut Vec<i8>, &mut Vec<(f32, i32)>),
        quads: &mut Vec<M::Quad>,
    ) {
        let depth = self.inputs / DEPTH;
        let tiles = task.rows.len().div_ceil(T);
        numbers.resize(self.inputs, 0);
        scales.clear();
        // What the last tile has beyond the last row is multiplied, and left aside.
        quads.resize(tiles * depth * T, M::Quad::default());
        let rows = &self.input[task.rows.start * self.inputs..task.rows.end * self.inputs];
        for (index, row) in rows.chunks_exact(self.inputs).enumerate() {
            // SAFETY: a `Dot` is only made where the processor has its instructions.
            let (scale, sum) = unsafe { M::quantize(row, numbers) };
            scales.push((scale, -OFFSET * sum));
            let tile = &mut quads[index / T * depth * T..][..depth * T];
            for (place, values) in tile.as_chunks_mut::<T>().0.iter_mut().zip(numbers.as_chunks::<DEPTH>().0)
            {
                place[index % T] = M::quad(*values);
            }
        }
        let of_block = HEAD + self.inputs * COLUMNS;
        let blocks = self.weights.chunks_exact(of_block).skip(task.blocks.start).take(task.blocks.len());
        for (block, weights) in blocks.enumerate() {
            let (head, weights) = weights.split_at(HEAD);
            let mut of_columns = [0.0; COLUMNS];
            for (scale, bytes) in of_columns.iter_mut().zip(head.as_chunks().0) {
                *scale = f32::from_le_bytes(*bytes);
            }
            let weights = weights.as_chunks().0;
            for (tile, quads) in quads.chunks_exact(depth * T).enumerate() {
                let first = tile * T;
                let rows = T.min(scales.len() - first);
                let mut sums: [Sums; T] = [[0; COLUMNS]; T];
                for (sums, (_, start)) in sums.iter_mut().zip(&scales[first..first + rows]) {
                    *sums = [*start; COLUMNS];
                }
                // SAFETY: as above.
                unsafe { M::dot(weights, quads.as_chunks::<T>().0, &mut sums) };
                let outputs = &mut task.output[first..first + rows];
                for ((output, sums), (scale, _)) in outputs.iter_mut().zip(&sums).zip(&scales[first..]) {
                    let output = &mut output[block * COLUMNS..][..COLUMNS];
                    for ((value, sum), of_column) in output.iter_mut().zip(sums).zip(&of_columns) {
                        #[expect(
                            clippy::cast_precision_loss,
                            reason = "far less than the rounding to eight bits"
                        )]
                        let sum = *sum as f32;
                        *value = sum * scale * of_column;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
