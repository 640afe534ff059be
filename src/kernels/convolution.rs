//! A 3×3 convolution with stride 1 and a border of one zero, by Winograd's algorithm.
//!
//! The tiles of the results are worked on in chunks, whose transformed inputs stay in the cache. For each chunk, threads
//! first transform the inputs, a group of tiles at a time. Then each takes some output channels: it transforms their
//! weights, sums up the products over all input channels, and transforms the sums into pixels.
//!
//! The order of all sums depends on the size of an image alone: not on the batch, and not on the threads.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::level::Level;
use super::minimal::{F2, F4, Minimal};
use super::multiply::Product;
use super::panel::{stride, transform_weights};
use super::tiles::{Images, Input, Output, Stage, Sums, transform_inputs, transform_outputs};
use super::vector::{LANES, Lane, grow};

/// Tiles in a chunk. Their inputs take 3 MB for 320 channels, and those weigh as much as the weights that are transformed
/// for them.
const CHUNK: usize = 64;
/// Input channels that are summed up at once.
const DEPTH: usize = 128;

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
    /// The faster for an image of this size. To transform weights takes as long as the products of some tiles (measured).
    pub fn fastest(images: Images) -> Self {
        let two = 16 * (images.tiles(2) + 12);
        let four = 36 * (images.tiles(4) + 14);
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
        let input = Input { images: self.images, channels: self.inputs, pixels: self.input };
        let total = self.images.batch * self.images.tiles(M);
        // Each thread needs a group.
        let chunks = total.div_ceil(CHUNK.max(threads.count * level.tiles()));
        let Scratch { values, of_threads } = scratch;
        of_threads.resize_with(threads.count.max(of_threads.len()), Mutex::default);
        let of_thread = |thread: usize| of_threads[thread].lock().unwrap_or_else(PoisonError::into_inner);
        for chunk in 0..chunks {
            let chunk = Chunk::<N>::new(part(&(0..total), chunk, chunks), level, self.inputs);
            grow(values, chunk.of_group() * chunk.groups);
            let groups: Vec<_> =
                values.chunks_mut(chunk.of_group()).take(chunk.groups).map(Mutex::new).collect();
            threads.each(chunk.groups, &|group, thread| {
                let tiles = chunk.group(group);
                let mut values = groups[group].lock().unwrap_or_else(PoisonError::into_inner);
                let values = &mut values[..N * N * chunk.blocks * tiles.len()];
                transform_inputs::<A, N, M>(level, &input, tiles, &mut of_thread(thread).stage, values);
            });
            drop(groups);
            let panels = (self.outputs / LANES).div_ceil(level.width());
            // With many threads, some share a panel.
            let shares = (2 * threads.count).div_ceil(panels).min(chunk.groups);
            threads.each(panels * shares, &|task, thread| {
                let groups = part(&(0..chunk.groups), task % shares, shares);
                self.finish::<A, N, M>(
                    level,
                    &chunk,
                    values,
                    task / shares,
                    groups,
                    output,
                    &mut of_thread(thread),
                );
            });
        }
    }

    /// Makes the results of some output channels for some groups of a chunk.
    #[expect(clippy::too_many_arguments, reason = "what the threads share, and what they do not")]
    fn finish<A: Minimal<N, M>, const N: usize, const M: usize>(
        &self,
        level: Level,
        chunk: &Chunk<N>,
        values: &[Lane],
        panel: usize,
        groups: Range<usize>,
        output: &Output<'_>,
        mine: &mut OfThread,
    ) {
        let weights = self.weights.as_chunks::<LANES>().0;
        let first = panel * level.width();
        let width = level.width().min(self.outputs / LANES - first);
        let OfThread { stage, panel, sums } = mine;
        let of_sums = N * N * chunk.largest_group() * width;
        grow(sums, of_sums * groups.len());
        grow(panel, N * N * stride(DEPTH.min(self.inputs), width));
        for start in (0..self.inputs).step_by(DEPTH) {
            let depth = DEPTH.min(self.inputs - start);
            let panel = &mut panel[..N * N * stride(depth, width)];
            for at in 0..width {
                let weights = &weights[((first + at) * self.inputs + start) * 9..][..depth * 9];
                transform_weights::<A, N, M>(level, weights, panel, width, at);
            }
            for (position, weights) in panel.chunks(stride(depth, width)).enumerate() {
                for group in groups.clone() {
                    let tiles = chunk.group(group).len();
                    let at = group * chunk.of_group() + (position * chunk.blocks + start / LANES) * tiles;
                    let values = &values[at..][..depth / LANES * tiles];
                    let at = (group - groups.start) * of_sums + position * tiles * width;
                    let product = Product { width, tiles, weights: &weights[..depth * width], values };
                    product.add_to(level, &mut sums[at..][..tiles * width], start == 0);
                }
            }
        }
        for group in groups.clone() {
            for at in 0..width {
                let lanes = &sums[(group - groups.start) * of_sums..][..of_sums];
                let sums = Sums { lanes, width, at };
                let tiles = chunk.group(group);
                transform_outputs::<A, N, M>(level, sums, tiles, (first + at) * LANES, output, stage);
            }
        }
    }
}

/// Tiles that are worked on at a time, in nearly equal groups for the inner loop.
struct Chunk<const N: usize> {
    tiles: Range<usize>,
    groups: usize,
    /// Lanes of input channels.
    blocks: usize,
}

impl<const N: usize> Chunk<N> {
    fn new(tiles: Range<usize>, level: Level, inputs: usize) -> Self {
        Self { groups: tiles.len().div_ceil(level.tiles()), tiles, blocks: inputs / LANES }
    }

    /// The tiles of a group.
    fn group(&self, group: usize) -> Range<usize> {
        part(&self.tiles, group, self.groups)
    }

    fn largest_group(&self) -> usize {
        self.tiles.len().div_ceil(self.groups)
    }

    /// Lanes of a group's transformed inputs.
    fn of_group(&self) -> usize {
        N * N * self.blocks * self.largest_group()
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
