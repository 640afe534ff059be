//! A 3×3 convolution with stride 1 and a border of one zero, by Winograd's algorithm.
//!
//! The tiles of the results are worked on in pieces. A thread transforms a piece's inputs, all channels of a slab.
//! Then, for some output channels at a time, it transforms weights, sums up the products, and transforms the sums into
//! pixels. Where there are fewer pieces than threads, threads share the inputs of a piece and take different output
//! channels. Slabs come one after the other, so that the transformed inputs stay in the third cache. Those of 2560
//! channels would come from memory each time.
//!
//! The order of all sums depends on the size of an image alone: not on the batch, and not on the threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::level::Level;
use super::minimal::{F2, F4, Minimal};
use super::multiply::Product;
use super::panel::{of_row, transform_weights};
use super::tiles::{Images, Input, Output, Stage, transform_inputs, transform_outputs};
use super::vector::{Grid, LANES, Lane, PIECE, grids, grids_mut, grow, of_grid};

/// Lanes of input channels that are summed up at once. Their transformed weights stay in the second cache.
const DEPTH: usize = 4;
/// Tiles times lanes of input channels that a thread keeps transformed, 9 MB. They stay in the third cache.
const SLAB: usize = 64 * PIECE;

/// What is called with the number of a task.
type Task<'a> = &'a (dyn Fn(usize) + Sync);

/// How to run tasks at once.
pub struct Threads<'a> {
    pub count: usize,
    /// Calls a task with 0, 1, … up to a number of them.
    pub run: &'a dyn Fn(usize, Task<'_>),
}

/// The tensors of a convolution.
pub struct Convolution<'a> {
    pub images: Images,
    /// Channels, multiples of 16.
    pub inputs: usize,
    pub outputs: usize,
    /// [batch][inputs][height][width]
    pub input: &'a [f32],
    /// [outputs / 16][inputs][9][16]
    pub weights: &'a [f32],
    /// [outputs]
    pub bias: &'a [f32],
    /// To add to each channel of an image: [batch][outputs].
    pub shift: Option<&'a [f32]>,
    /// To add: [batch][outputs][height][width].
    pub image: Option<&'a [f32]>,
}

/// Memory that later calls use again.
#[derive(Default)]
pub struct Scratch {
    values: Vec<Lane>,
    of_threads: Vec<Mutex<OfThread>>,
}

#[derive(Default)]
struct OfThread {
    stage: Stage,
    values: Vec<Lane>,
    panel: Vec<Lane>,
    sums: Vec<Lane>,
}

/// The side of the tiles of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Two,
    Four,
}

impl Side {
    /// The faster for two images of this size, a guided step. It goes by the size alone, so that a batch does not change
    /// the results. To transform weights takes as long as the products of some tiles (measured).
    pub fn fastest(images: Images) -> Self {
        let two = 16 * (2 * images.tiles(2) + 10);
        let four = 36 * (2 * images.tiles(4) + 9);
        if four < two { Self::Four } else { Self::Two }
    }
}

impl Convolution<'_> {
    /// Writes `output`: [batch][outputs][height][width]. The error says which tensor has another size than the others.
    pub fn run(
        &self,
        level: Level,
        side: Side,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let Self { images, inputs, outputs, .. } = *self;
        let count =
            |factors: &[usize]| factors.iter().try_fold(1_usize, |count, factor| count.checked_mul(*factor));
        let of_output = count(&[images.batch, outputs, images.height, images.width]);
        let of_input = count(&[images.batch, inputs, images.height, images.width]);
        for (is_right, tensor) in [
            (inputs > 0, "there are no input channels"),
            (
                inputs.is_multiple_of(LANES) && outputs.is_multiple_of(LANES),
                "the channels are no multiples of 16",
            ),
            (Some(self.input.len()) == of_input, "the input has another size"),
            (Some(output.len()) == of_output, "the output has another size"),
            (Some(self.weights.len()) == count(&[inputs, outputs, 9]), "the weights have another size"),
            (self.bias.len() == outputs, "the bias has another size"),
            (
                self.shift.is_none_or(|shift| Some(shift.len()) == count(&[images.batch, outputs])),
                "the shift has another size",
            ),
            (
                self.image.is_none_or(|image| Some(image.len()) == of_output),
                "the image to add has another size",
            ),
        ] {
            if !is_right {
                return Err(tensor);
            }
        }
        if output.is_empty() {
            return Ok(());
        }
        let output = Output {
            images,
            channels: outputs,
            bias: self.bias,
            shift: self.shift,
            image: self.image,
            planes: output.chunks_mut(images.plane()).map(Mutex::new).collect(),
        };
        match side {
            Side::Two => self.run_by::<F2, 4, 2>(level, &output, scratch, threads),
            Side::Four => self.run_by::<F4, 6, 4>(level, &output, scratch, threads),
        }
        Ok(())
    }

    fn run_by<A: Minimal<N, M>, const N: usize, const M: usize>(
        &self,
        level: Level,
        output: &Output<'_>,
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) {
        let blocks = self.inputs / LANES;
        // As for a guided step, so that a batch does not change the results.
        let slabs = (blocks * PIECE.min(2 * self.images.tiles(M))).div_ceil(SLAB).max(1);
        for slab in 0..slabs {
            self.add_slab::<A, N, M>(level, part(&(0..blocks), slab, slabs), output, scratch, threads);
        }
    }

    /// Adds the products of some lanes of input channels to the output. The first lanes put theirs there.
    fn add_slab<A: Minimal<N, M>, const N: usize, const M: usize>(
        &self,
        level: Level,
        slab: Range<usize>,
        output: &Output<'_>,
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) {
        let input = Input { images: self.images, channels: self.inputs, pixels: self.input };
        let total = 0..self.images.batch * self.images.tiles(M);
        let blocks = slab.len();
        let panels = (self.outputs / LANES).div_ceil(level.width());
        let Scratch { values, of_threads } = scratch;
        of_threads.resize_with(threads.count.max(of_threads.len()), Mutex::default);
        let of_thread = |thread: usize| of_threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = total.len().div_ceil(PIECE);
        if pieces >= threads.count {
            // Each thread works on pieces of its own.
            let pieces = pieces.next_multiple_of(threads.count);
            threads.each(pieces, &|piece, thread| {
                let tiles = part(&total, piece, pieces);
                let mut mine = of_thread(thread);
                let mut values = std::mem::take(&mut mine.values);
                grow(&mut values, of_grid(N) * blocks);
                let grids = &mut grids_mut::<N>(&mut values)[..blocks];
                for (block, grid) in grids.iter_mut().enumerate() {
                    let (tiles, first) = (tiles.clone(), (slab.start + block) * LANES);
                    transform_inputs::<A, N, M>(level, &input, tiles, first, &mut mine.stage, grid);
                }
                // Threads that start together would write the same planes at the same time.
                for panel in (0..panels).map(|panel| (panel + piece * panels / pieces) % panels) {
                    self.finish::<A, N, M>(level, tiles.clone(), (&slab, grids), panel, output, &mut mine);
                }
                mine.values = values;
            });
            return;
        }
        // Threads share pieces, enough for two tasks each.
        let pieces =
            pieces.max((2 * threads.count).div_ceil(panels).min(total.len().div_ceil(level.tiles())));
        grow(values, of_grid(N) * blocks * pieces);
        let each: Vec<_> = grids_mut::<N>(values).iter_mut().take(blocks * pieces).map(Mutex::new).collect();
        threads.each(each.len(), &|index, thread| {
            let (piece, block) = (index / blocks, index % blocks);
            let (tiles, first) = (part(&total, piece, pieces), (slab.start + block) * LANES);
            let mut grid = each[index].lock().unwrap_or_else(PoisonError::into_inner);
            transform_inputs::<A, N, M>(level, &input, tiles, first, &mut of_thread(thread).stage, &mut grid);
        });
        drop(each);
        let grids = grids::<N>(values);
        threads.each(panels * pieces, &|task, thread| {
            let (panel, piece) = (task / pieces, task % pieces);
            let (tiles, grids) = (part(&total, piece, pieces), &grids[piece * blocks..][..blocks]);
            self.finish::<A, N, M>(level, tiles, (&slab, grids), panel, output, &mut of_thread(thread));
        });
    }

    /// Adds to the results of some output channels for a piece, from transformed inputs.
    fn finish<A: Minimal<N, M>, const N: usize, const M: usize>(
        &self,
        level: Level,
        tiles: Range<usize>,
        (slab, values): (&Range<usize>, &[Grid<N>]),
        panel: usize,
        output: &Output<'_>,
        mine: &mut OfThread,
    ) {
        let weights = self.weights.as_chunks::<LANES>().0;
        let first = panel * level.width();
        let width = level.width().min(self.outputs / LANES - first);
        let OfThread { stage, panel, sums, .. } = mine;
        grow(sums, of_grid(N) * width);
        let sums = &mut grids_mut::<N>(sums)[..width];
        let of_panel = N * N * of_row(width);
        grow(panel, of_panel * DEPTH);
        let end_of = |start: usize| (start + DEPTH * LANES).min(slab.end * LANES);
        let weights = |first: usize, width: usize, start: usize| {
            let mut lanes: [&[Lane]; 2] = [&[]; 2];
            for (at, lanes) in lanes.iter_mut().enumerate().take(width) {
                let all = &weights[(first + at) * self.inputs * 9..][..self.inputs * 9];
                *lanes = &all[start * 9..end_of(start) * 9];
            }
            lanes
        };
        for (index, values) in values.chunks(DEPTH).enumerate() {
            let start = (slab.start + index * DEPTH) * LANES;
            let panel = &mut panel[..of_panel * values.len()];
            transform_weights::<A, N, M>(level, &weights(first, width, start)[..width], panel);
            let next = if end_of(start) < slab.end * LANES {
                weights(first, width, end_of(start))
            } else {
                let width_of_next = level.width().min(self.outputs / LANES - first - width);
                weights(first + width, width_of_next, slab.start * LANES)
            };
            Product { panel, values, is_first: index == 0, next }.add_to(level, tiles.len(), sums);
        }
        for (at, sums) in sums.iter().enumerate() {
            let first = (first + at) * LANES;
            let is_first = slab.start == 0;
            transform_outputs::<A, N, M>(level, sums, tiles.clone(), first, is_first, output, stage);
        }
    }
}

impl Threads<'_> {
    /// Calls `task(index, thread)` for each index below `total`. A thread takes the next when it is done.
    pub fn each(&self, total: usize, task: &(dyn Fn(usize, usize) + Sync)) {
        let next = AtomicUsize::new(0);
        (self.run)(self.count.min(total), &|thread| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= total {
                    break;
                }
                task(index, thread);
            }
        });
    }
}

/// The part at `index` of `count` nearly equal parts.
fn part(whole: &Range<usize>, index: usize, count: usize) -> Range<usize> {
    let at = |index: usize| whole.start + whole.len() * index / count;
    at(index)..at(index + 1)
}

#[cfg(test)]
mod tests;
