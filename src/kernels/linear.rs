//! A linear layer in float32, with what [`Layer`] has around its products.
//!
//! A thread takes some rows, packs them in tiles, and goes through the weights in groups of two blocks of sixteen products. A
//! tile's products with a group are summed up in registers over 320 inputs, and then added to those before. At most 1280 inputs
//! are multiplied at once: more of the rows would not stay in the second cache.
//!
//! So the order of a sum depends on the inputs alone: not on the batch, and not on the threads.

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

use super::convolution::Threads;
use super::layer::{self, Group, Layer, Task};
use super::level::{Level, in_tiles};
use super::vector::{LANES, Lane, Vector, ZERO};

/// Lanes of inputs whose products are summed up by themselves. A longer chain of sums loses digits.
const CHAIN: usize = 20;
/// Lanes of inputs that are multiplied at once, a multiple of the chain.
const DEPTH: usize = 4 * CHAIN;
/// With more, a norm would be computed very often.
const MOST_INPUTS: usize = 1 << 16;
/// Rows of a task, a multiple of all tiles' rows. Packed, they stay in the second cache.
const ROWS: usize = 96;

/// A layer and its weights.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// Its inputs are a multiple of 16.
    pub layer: Layer<'a>,
    /// `[outputs / 16][inputs][16]`
    pub weights: &'a [f32],
}

/// Memory that later calls use again.
pub type Scratch = layer::Scratch<OfThread>;

#[derive(Default)]
pub struct OfThread {
    row: Vec<f32>,
    /// `[tiles][depth][rows of a tile]`
    packed: Vec<Lane>,
    /// Of one tile. If the inputs are multiplied in several parts, of all tiles.
    products: Vec<Group>,
}

impl Linear<'_> {
    /// Writes `output`: `[rows][outputs]`, or `[rows][outputs / 2]` where it is gated. The error says which tensor has another
    /// size than the others.
    pub fn run(
        &self,
        level: Level,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let layer = &self.layer;
        layer.check(output)?;
        if !layer.inputs.is_multiple_of(LANES) || layer.inputs > MOST_INPUTS {
            return Err("the inputs are no multiple of 16 up to 65536");
        }
        if layer.inputs.checked_mul(layer.outputs) != Some(self.weights.len()) {
            return Err("the weights have another size");
        }
        layer.each(output, (ROWS, size_of_val(self.weights)), scratch, threads, |task, room| {
            multiply(level, self, level, task, room);
        });
        Ok(())
    }
}

in_tiles! {
    multiply(linear: &Linear<'_>, level: Level, task: &mut Task<'_>, room: &mut OfThread) = multiply_task[6, 6, 12]
}

#[inline(always)]
fn multiply_task<V: Vector, const R: usize>(
    linear: &Linear<'_>,
    level: Level,
    task: &mut Task<'_>,
    room: &mut OfThread,
) {
    let layer = &linear.layer;
    let (rows, depths) = (task.rows.len(), layer.inputs / LANES);
    let tiles = rows.div_ceil(R);
    let weights = linear.weights.as_chunks::<LANES>().0;
    let OfThread { row: for_row, packed, products } = room;
    // What the last tile has beyond the last row is multiplied, and left aside.
    packed.resize(packed.len().max(tiles * depths.min(DEPTH) * R), ZERO);
    let kept = if depths > DEPTH { task.groups.len() * tiles } else { 1 };
    products.resize(products.len().max(kept * R), Group::default());
    for start in (0..depths).step_by(DEPTH) {
        let end = depths.min(start + DEPTH);
        let of_tile = (end - start) * R;
        for (index, row) in task.rows.clone().enumerate() {
            let row = &layer.row(level, row, for_row).as_chunks().0[start..end];
            let tile = packed[index / R * of_tile..][..of_tile].as_chunks_mut::<R>().0;
            for (rows, values) in tile.iter_mut().zip(row) {
                rows[index % R] = *values;
            }
        }
        for (index, group) in task.groups.clone().enumerate() {
            let weights =
                layer.blocks(group).map(|block| &weights[block * layer.inputs..][start * LANES..end * LANES]);
            for (tile, values) in packed.chunks_exact(of_tile).take(tiles).enumerate() {
                let place = (index * tiles + tile) % kept;
                let products: &mut [Group; R] = &mut products.as_chunks_mut().0[place];
                add_products::<V, R>(values.as_chunks().0, weights, start == 0, products);
                if end == depths {
                    let first = tile * R;
                    task.finish(level, layer, first, group, &products[..R.min(rows - first)]);
                }
            }
        }
    }
}

/// Adds the products of all depths to those of a tile.
#[inline(always)]
fn add_products<V: Vector, const R: usize>(
    values: &[[Lane; R]],
    [left, right]: [&[Lane]; 2],
    is_first: bool,
    products: &mut [Group; R],
) {
    let weights = left.chunks(CHAIN * LANES).zip(right.chunks(CHAIN * LANES));
    for (index, (values, (left, right))) in values.chunks(CHAIN).zip(weights).enumerate() {
        add_chain::<V, R>(values, [left, right], is_first && index == 0, products);
    }
}

#[inline(always)]
fn add_chain<V: Vector, const R: usize>(
    values: &[[Lane; R]],
    weights: [&[Lane]; 2],
    is_first: bool,
    products: &mut [Group; R],
) {
    /// Vectors of products at once.
    const AT_ONCE: usize = 2;
    for first in (0..2 * LANES).step_by(AT_ONCE * V::WIDTH) {
        let at: [(usize, usize); AT_ONCE] = std::array::from_fn(|vector| {
            let product = first + vector * V::WIDTH;
            (product / LANES, product % LANES)
        });
        let [left, right] = at.map(|(block, _)| weights[block].as_chunks::<LANES>().0);
        let mut sums = [[V::splat(0.0); AT_ONCE]; R];
        for (values, (left, right)) in values.iter().zip(left.iter().zip(right)) {
            for k in 0..LANES {
                let columns = [V::load(&left[k], at[0].1), V::load(&right[k], at[1].1)];
                for r in 0..R {
                    for v in 0..AT_ONCE {
                        sums[r][v] = columns[v].times_plus(values[r][k], sums[r][v]);
                    }
                }
            }
        }
        for r in 0..R {
            for v in 0..AT_ONCE {
                let (block, part) = at[v];
                let place = &mut products[r][block];
                let total = if is_first { sums[r][v] } else { V::load(place, part).add(sums[r][v]) };
                total.store(place, part);
            }
        }
    }
}

#[cfg(test)]
mod tests;
