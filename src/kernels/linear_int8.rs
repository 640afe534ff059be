//! A linear layer in int8: the weights are quantised when the model is loaded, the inputs here, each row by itself.
//!
//! So a row's result depends on nothing but the row: not on the batch, the threads or the processor. Threads take some rows
//! and some output channels each. They quantise the rows, and then go through the weights in blocks of sixteen channels.
//!
//! A product of `value · weight` is `scale_of_row · scale_of_channel · Σ number · (weight + 128)`, less 128 times the sum of
//! the row's numbers.

use super::convolution::Threads;
#[cfg(target_arch = "x86_64")]
use super::dot::{Avx2, Avx512Vnni, AvxVnni};
use super::dot::{COLUMNS, DEPTH, Dot, Multiply, Portable, Sums};
use super::layer::{self, Group, Layer, Task};
use super::level::Level;

/// Rows of a task. Each task reads all the weights of its channels, and more rows would not fit into the cache.
const ROWS: usize = 96;
/// What is added to a weight.
const OFFSET: i32 = 128;
/// The bytes of the scales that a block begins with.
const HEAD: usize = COLUMNS * size_of::<f32>();
/// With more, a sum might not fit into 32 bits.
const MOST_INPUTS: usize = 1 << 16;

/// A layer and its weights.
#[derive(Clone, Copy)]
pub struct LinearInt8<'a> {
    pub layer: Layer<'a>,
    /// `[outputs / 16]`, each 16 scales in float32 and `[inputs / 4][16][4]` unsigned bytes.
    pub weights: &'a [u8],
}

/// Memory that later calls use again.
pub type Scratch = layer::Scratch<OfThread>;

/// What a thread quantises its rows into.
#[derive(Default)]
pub struct OfThread {
    row: Vec<f32>,
    numbers: Vec<i8>,
    /// The scale of each row, and what its sums begin with.
    rows: Vec<(f32, i32)>,
    quads: Vec<i32>,
    long_quads: Vec<i64>,
    short_quads: Vec<[i16; DEPTH]>,
}

/// The bytes of a layer's weights.
pub fn weight_bytes(inputs: usize, outputs: usize) -> Option<usize> {
    (outputs / COLUMNS).checked_mul(inputs.checked_mul(COLUMNS)?.checked_add(HEAD)?)
}

impl LinearInt8<'_> {
    /// Writes `output`: `[rows][outputs]`, or `[rows][outputs / 2]` where it is gated. The error says which tensor has another
    /// size than the others. `level` is for what is around the products.
    pub fn run(
        &self,
        (dot, level): (Dot, Level),
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let Layer { inputs, outputs, .. } = self.layer;
        self.layer.check(output)?;
        if !inputs.is_multiple_of(DEPTH) || inputs > MOST_INPUTS {
            return Err("the inputs are no multiple of 4 up to 65536");
        }
        if weight_bytes(inputs, outputs) != Some(self.weights.len()) {
            return Err("the weights have another size");
        }
        self.layer.each(output, (ROWS, self.weights.len()), scratch, threads, |task, room| {
            #[cfg_attr(
                not(target_arch = "x86_64"),
                expect(unused_variables, reason = "only x86-64 has instructions for them")
            )]
            let OfThread { row, numbers, rows, quads, long_quads, short_quads } = room;
            let room = (row, numbers, rows);
            match dot {
                Dot::Portable => self.multiply::<Portable, 4>(level, task, room, short_quads),
                #[cfg(target_arch = "x86_64")]
                Dot::Avx2 => self.multiply::<Avx2, 6>(level, task, room, long_quads),
                #[cfg(target_arch = "x86_64")]
                Dot::AvxVnni => self.multiply::<AvxVnni, 6>(level, task, room, quads),
                #[cfg(target_arch = "x86_64")]
                Dot::Avx512Vnni => self.multiply::<Avx512Vnni, 24>(level, task, room, quads),
            }
        });
        Ok(())
    }

    #[expect(unsafe_code, reason = "calls of functions that need instructions")]
    fn multiply<M: Multiply<T>, const T: usize>(
        &self,
        level: Level,
        task: &mut Task<'_>,
        (for_row, numbers, scales): (&mut Vec<f32>, &mut Vec<i8>, &mut Vec<(f32, i32)>),
        quads: &mut Vec<M::Quad>,
    ) {
        let layer = &self.layer;
        let depth = layer.inputs / DEPTH;
        let tiles = task.rows.len().div_ceil(T);
        numbers.resize(layer.inputs, 0);
        scales.clear();
        // What the last tile has beyond the last row is multiplied, and left aside.
        quads.resize(tiles * depth * T, M::Quad::default());
        for (index, row) in task.rows.clone().enumerate() {
            // SAFETY: a `Dot` is only made where the processor has its instructions.
            let (scale, sum) = unsafe { M::quantize(layer.row(level, row, for_row), numbers) };
            scales.push((scale, -OFFSET * sum));
            let tile = &mut quads[index / T * depth * T..][..depth * T];
            for (place, values) in tile.as_chunks_mut::<T>().0.iter_mut().zip(numbers.as_chunks::<DEPTH>().0)
            {
                place[index % T] = M::quad(*values);
            }
        }
        let of_block = HEAD + layer.inputs * COLUMNS;
        let blocks = |group| {
            layer.blocks(group).map(|block| {
                let (head, weights) = self.weights[block * of_block..][..of_block].split_at(HEAD);
                let mut scales = [0.0; COLUMNS];
                for (scale, bytes) in scales.iter_mut().zip(head.as_chunks().0) {
                    *scale = f32::from_le_bytes(*bytes);
                }
                (scales, weights.as_chunks().0)
            })
        };
        for group in task.groups.clone() {
            let blocks = blocks(group);
            for (tile, quads) in quads.chunks_exact(depth * T).enumerate() {
                let first = tile * T;
                let rows = T.min(scales.len() - first);
                let scales = &scales[first..first + rows];
                let mut products = [Group::default(); T];
                for (block, (of_columns, weights)) in blocks.iter().enumerate() {
                    let mut sums: [Sums; T] = [[0; COLUMNS]; T];
                    for (sums, (_, start)) in sums.iter_mut().zip(scales) {
                        *sums = [*start; COLUMNS];
                    }
                    // SAFETY: as above.
                    unsafe { M::dot(weights, quads.as_chunks::<T>().0, &mut sums) };
                    for ((products, sums), (scale, _)) in products.iter_mut().zip(&sums).zip(scales) {
                        let products = &mut products[block];
                        for ((product, sum), of_column) in products.iter_mut().zip(sums).zip(of_columns) {
                            #[expect(
                                clippy::cast_precision_loss,
                                reason = "far less than the rounding to eight bits"
                            )]
                            let sum = *sum as f32;
                            *product = sum * scale * of_column;
                        }
                    }
                }
                task.finish(level, layer, first, group, &products[..rows]);
            }
        }
    }
}

#[cfg(test)]
mod tests;
