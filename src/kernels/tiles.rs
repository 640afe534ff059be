//! The transforms of images by tiles, and the way between planes of pixels and lanes of channels.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]
#![expect(clippy::needless_range_loop, reason = "loops of known lengths, which the compiler unrolls")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::level::{Level, for_each_level};
use super::minimal::Minimal;
use super::vector::{Four, Grid, LANES, Lane, Vector, ZERO, grow, prefetch};
#[cfg(target_arch = "x86_64")]
use super::x86::{Eight, Sixteen};

/// Images of one size, one plane of pixels for each channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Images {
    pub batch: usize,
    pub height: usize,
    pub width: usize,
}

impl Images {
    /// Pixels in a plane.
    pub fn plane(self) -> usize {
        self.height * self.width
    }

    /// The number of tiles with this side in each image. They are counted row by row, image by image.
    pub fn tiles(self, side: usize) -> usize {
        self.height.div_ceil(side) * self.width.div_ceil(side)
    }

    /// The neighbours among these tiles, row by row.
    fn runs(self, side: usize, tiles: Range<usize>) -> impl Iterator<Item = Run> {
        let (down, across) = (self.height.div_ceil(side), self.width.div_ceil(side));
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            let (start, row) = (next, next / across);
            next = tiles.end.min((row + 1) * across);
            (start < next).then(|| Run {
                image: row / down,
                top: row % down * side,
                left: start % across * side,
                first: start - tiles.start,
                count: next - start,
            })
        })
    }
}

/// Tiles beside each other in one row of an image.
struct Run {
    image: usize,
    /// The first pixel of its results.
    top: usize,
    left: usize,
    /// Its first tile, counted from the start of the piece.
    first: usize,
    count: usize,
}

/// What a convolution reads.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub images: Images,
    pub channels: usize,
    /// [batch][channels][height][width]
    pub pixels: &'a [f32],
}

/// What a convolution writes, and what it adds to that: a value for each channel, and an image.
pub struct Output<'a> {
    pub images: Images,
    pub channels: usize,
    /// [channels]
    pub bias: &'a [f32],
    /// [batch][channels]
    pub shift: Option<&'a [f32]>,
    /// [batch][channels][height][width]
    pub image: Option<&'a [f32]>,
    /// [batch][channels], each of [height][width]. Threads write different pixels of a plane.
    pub planes: Vec<Mutex<&'a mut [f32]>>,
}

/// The pixels of a run, on their way.
#[derive(Default)]
pub struct Stage {
    lanes: Vec<Lane>,
}

for_each_level! {
    /// Transforms sixteen channels from `first` on of the tiles of a piece.
    transform_inputs(input: &Input<'_>, tiles: Range<usize>, first: usize, stage: &mut Stage, values: &mut Grid<N>) =
        inputs
}

#[inline(always)]
fn inputs<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    input: &Input<'_>,
    tiles: Range<usize>,
    first: usize,
    stage: &mut Stage,
    values: &mut Grid<N>,
) {
    let Input { images, channels, pixels } = *input;
    for run in images.runs(M, tiles) {
        let across = run.count * M + N - M;
        // One pixel of zeros lies around the image.
        let columns = run.left.saturating_sub(1)..images.width.min(run.left + across - 1);
        let shift = columns.start + 1 - run.left;
        let is_inside = run.top > 0 && run.top + N - 1 <= images.height && columns.len() == across;
        grow(&mut stage.lanes, N * across);
        let lanes = &mut stage.lanes[..N * across];
        if !is_inside {
            lanes.fill(ZERO);
        }
        for half in [0, LANES / 2] {
            let first = run.image * channels + first + half;
            for y in 0..N {
                let Some(row) = (run.top + y).checked_sub(1).filter(|row| *row < images.height) else {
                    continue;
                };
                let mut rows: [&[f32]; 8] = [&[]; 8];
                for channel in 0..8 {
                    let plane = &pixels[(first + channel) * images.plane()..][..images.plane()];
                    rows[channel] = &plane[row * images.width..][columns.clone()];
                    // Eight channels further on is what is read next.
                    let next = (first + channel + LANES / 2) * images.plane() + row * images.width;
                    prefetch(pixels.get(next + columns.start..next + columns.end).unwrap_or(&[]));
                }
                lanes_from_rows::<V>(&rows, &mut lanes[y * across + shift..][..columns.len()], half);
            }
        }
        for tile in 0..run.count {
            for part in (0..LANES).step_by(V::WIDTH) {
                let mut columns = [[V::splat(0.0); N]; N];
                for x in 0..N {
                    let mut column = [V::splat(0.0); N];
                    for y in 0..N {
                        column[y] = V::load(&lanes[y * across + tile * M + x], part);
                    }
                    columns[x] = A::input(&column);
                }
                for y in 0..N {
                    let row = A::input(&row_of(&columns, y));
                    for x in 0..N {
                        row[x].store(&mut values[y][x][run.first + tile], part);
                    }
                }
            }
        }
    }
}

for_each_level! {
    /// Transforms the sums of a piece's tiles into the pixels of 16 channels from `first` on. They are added to those that
    /// are there, unless they are the first.
    transform_outputs(
        sums: &Grid<N>,
        tiles: Range<usize>,
        first: usize,
        is_first: bool,
        output: &Output<'_>,
        stage: &mut Stage,
    ) = outputs
}

#[inline(always)]
fn outputs<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    sums: &Grid<N>,
    tiles: Range<usize>,
    first: usize,
    is_first: bool,
    output: &Output<'_>,
    stage: &mut Stage,
) {
    let images = output.images;
    for run in images.runs(M, tiles) {
        let across = run.count * M;
        grow(&mut stage.lanes, M * across);
        let lanes = &mut stage.lanes[..M * across];
        let mut base = ZERO;
        if is_first {
            base.copy_from_slice(&output.bias[first..first + LANES]);
            if let Some(shift) = output.shift {
                let shift = &shift[run.image * output.channels + first..][..LANES];
                base.iter_mut().zip(shift).for_each(|(base, shift)| *base += shift);
            }
        }
        for tile in 0..run.count {
            for part in (0..LANES).step_by(V::WIDTH) {
                let mut columns = [[V::splat(0.0); M]; N];
                for x in 0..N {
                    let mut column = [V::splat(0.0); N];
                    for y in 0..N {
                        column[y] = V::load(&sums[y][x][run.first + tile], part);
                    }
                    columns[x] = A::output(&column);
                }
                for y in 0..M {
                    let row = A::output(&row_of(&columns, y));
                    for x in 0..M {
                        let pixel = row[x].add(V::load(&base, part));
                        pixel.store(&mut lanes[y * across + tile * M + x], part);
                    }
                }
            }
        }
        write::<V, M>(&run, first, is_first, output, lanes);
    }
}

/// Writes a run's pixels, `lanes`, as far as they are inside the image.
#[inline(always)]
fn write<V: Vector, const M: usize>(
    run: &Run,
    first: usize,
    is_first: bool,
    output: &Output<'_>,
    lanes: &[Lane],
) {
    let (images, across) = (output.images, run.count * M);
    let (rows, length) = (M.min(images.height - run.top), across.min(images.width - run.left));
    for half in [0, LANES / 2] {
        let index = run.image * output.channels + first + half;
        // All threads lock planes in this order.
        let mut planes: [_; 8] = std::array::from_fn(|channel| {
            output.planes[index + channel].lock().unwrap_or_else(PoisonError::into_inner)
        });
        for y in 0..rows {
            let at = (run.top + y) * images.width + run.left;
            let mut to: [&mut [f32]; 8] = Default::default();
            for (to, plane) in to.iter_mut().zip(&mut planes) {
                *to = &mut plane[at..][..length];
            }
            let lanes = &lanes[y * across..][..length];
            if !is_first {
                add_from_lanes::<V>(lanes, half, &mut to);
                continue;
            }
            rows_from_lanes::<V>(lanes, half, &mut to);
            if let Some(image) = output.image {
                for (channel, to) in to.iter_mut().enumerate() {
                    let image = &image[(index + channel) * images.plane() + at..][..length];
                    to.iter_mut().zip(image).for_each(|(pixel, more)| *pixel += more);
                }
            }
        }
    }
}

// The closures of `array::from_fn` and `map` would not be inlined far enough for vectors.
#[inline(always)]
fn row_of<V: Vector, const N: usize, const M: usize>(columns: &[[V; M]; N], y: usize) -> [V; N] {
    let mut row = [V::splat(0.0); N];
    for x in 0..N {
        row[x] = columns[x][y];
    }
    row
}

/// Puts a row of eight channels into eight places of each lane, from `half` on.
#[inline(always)]
fn lanes_from_rows<V: Vector>(rows: &[&[f32]; 8], lanes: &mut [Lane], half: usize) {
    for at in eights(lanes.len()) {
        let mut block = [[0.0; 8]; 8];
        for (channel, row) in block.iter_mut().zip(rows) {
            channel.copy_from_slice(&row[at..at + 8]);
        }
        V::transpose(&mut block);
        for (lane, pixel) in lanes[at..at + 8].iter_mut().zip(&block) {
            lane[half..half + 8].copy_from_slice(pixel);
        }
    }
    if lanes.len() < 8 {
        for (x, lane) in lanes.iter_mut().enumerate() {
            for channel in 0..8 {
                lane[half + channel] = rows[channel][x];
            }
        }
    }
}

/// The reverse of [`lanes_from_rows`].
#[inline(always)]
fn rows_from_lanes<V: Vector>(lanes: &[Lane], half: usize, rows: &mut [&mut [f32]; 8]) {
    for at in eights(lanes.len()) {
        let mut block = [[0.0; 8]; 8];
        for (pixel, lane) in block.iter_mut().zip(&lanes[at..]) {
            pixel.copy_from_slice(&lane[half..half + 8]);
        }
        V::transpose(&mut block);
        for (row, channel) in rows.iter_mut().zip(&block) {
            row[at..at + 8].copy_from_slice(channel);
        }
    }
    if lanes.len() < 8 {
        for (x, lane) in lanes.iter().enumerate() {
            for channel in 0..8 {
                rows[channel][x] = lane[half + channel];
            }
        }
    }
}

/// Adds the lanes to rows.
#[inline(always)]
fn add_from_lanes<V: Vector>(lanes: &[Lane], half: usize, rows: &mut [&mut [f32]; 8]) {
    for (at, lanes) in lanes.chunks(8).enumerate() {
        let mut block = [[0.0; 8]; 8];
        for (pixel, lane) in block.iter_mut().zip(lanes) {
            pixel.copy_from_slice(&lane[half..half + 8]);
        }
        V::transpose(&mut block);
        for (row, channel) in rows.iter_mut().zip(&block) {
            row[8 * at..].iter_mut().zip(channel).take(lanes.len()).for_each(|(pixel, more)| *pixel += more);
        }
    }
}

/// Where each eight of `length` start. The last may overlap the one before. There are none if `length` is less than eight.
#[inline(always)]
fn eights(length: usize) -> impl Iterator<Item = usize> {
    let last = length.checked_sub(8);
    (0..length).step_by(8).filter_map(move |at| last.map(|last| at.min(last)))
}
