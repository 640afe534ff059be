//! The transforms of images by tiles, and the way between planes of pixels and lanes of channels.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]
#![expect(clippy::needless_range_loop, reason = "loops of known lengths, which the compiler unrolls")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::level::{Level, for_each_level};
use super::minimal::Minimal;
use super::vector::{Four, LANES, Lane, Vector, ZERO, grow};
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
    /// Its first tile, counted from the start of the group.
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

/// The sums of products for a group of tiles, and the lane of interest.
#[derive(Clone, Copy)]
pub struct Sums<'a> {
    /// [N²][tiles][width]
    pub lanes: &'a [Lane],
    pub width: usize,
    pub at: usize,
}

/// The pixels of a run, on their way.
#[derive(Default)]
pub struct Stage {
    lanes: Vec<Lane>,
    pixels: Vec<f32>,
}

for_each_level! {
    /// Transforms the tiles of a group into `values` (\[N²\]\[channels / 16\]\[tiles\]).
    transform_inputs(input: &Input<'_>, tiles: Range<usize>, stage: &mut Stage, values: &mut [Lane]) = inputs
}

#[inline(always)]
fn inputs<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    input: &Input<'_>,
    tiles: Range<usize>,
    stage: &mut Stage,
    values: &mut [Lane],
) {
    let Input { images, channels, pixels } = *input;
    let (blocks, group) = (channels / LANES, tiles.len());
    for run in images.runs(M, tiles) {
        let across = run.count * M + N - M;
        // One pixel of zeros lies around the image.
        let columns = run.left.saturating_sub(1)..images.width.min(run.left + across - 1);
        let shift = columns.start + 1 - run.left;
        let is_inside = run.top > 0 && run.top + N - 1 <= images.height && columns.len() == across;
        grow(&mut stage.lanes, N * across);
        let lanes = &mut stage.lanes[..N * across];
        for block in 0..blocks {
            if !is_inside {
                lanes.fill(ZERO);
            }
            for half in [0, LANES / 2] {
                let first = run.image * channels + block * LANES + half;
                for y in 0..N {
                    let Some(row) = (run.top + y).checked_sub(1).filter(|row| *row < images.height) else {
                        continue;
                    };
                    let plane = |channel| &pixels[(first + channel) * images.plane()..][..images.plane()];
                    let mut rows: [&[f32]; 8] = [&[]; 8];
                    for channel in 0..8 {
                        rows[channel] = &plane(channel)[row * images.width..][columns.clone()];
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
                            let place = ((y * N + x) * blocks + block) * group + run.first + tile;
                            row[x].store(&mut values[place], part);
                        }
                    }
                }
            }
        }
    }
}

for_each_level! {
    /// Transforms the sums of a group of tiles into the pixels of 16 channels from `first` on.
    transform_outputs(sums: Sums<'_>, tiles: Range<usize>, first: usize, output: &Output<'_>, stage: &mut Stage) =
        outputs
}

#[inline(always)]
fn outputs<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    sums: Sums<'_>,
    tiles: Range<usize>,
    first: usize,
    output: &Output<'_>,
    stage: &mut Stage,
) {
    let (images, group) = (output.images, tiles.len());
    for run in images.runs(M, tiles) {
        let across = run.count * M;
        grow(&mut stage.lanes, M * across);
        let lanes = &mut stage.lanes[..M * across];
        let mut base = ZERO;
        base.copy_from_slice(&output.bias[first..first + LANES]);
        if let Some(shift) = output.shift {
            let shift = &shift[run.image * output.channels + first..][..LANES];
            base.iter_mut().zip(shift).for_each(|(base, shift)| *base += shift);
        }
        for tile in 0..run.count {
            for part in (0..LANES).step_by(V::WIDTH) {
                let mut columns = [[V::splat(0.0); M]; N];
                for x in 0..N {
                    let mut column = [V::splat(0.0); N];
                    for y in 0..N {
                        let place = ((y * N + x) * group + run.first + tile) * sums.width + sums.at;
                        column[y] = V::load(&sums.lanes[place], part);
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
        write::<V, M>(&run, first, output, lanes, &mut stage.pixels);
    }
}

/// Writes a run's pixels, `lanes`, as far as they are inside the image.
#[inline(always)]
fn write<V: Vector, const M: usize>(
    run: &Run,
    first: usize,
    output: &Output<'_>,
    lanes: &[Lane],
    pixels: &mut Vec<f32>,
) {
    let (images, across) = (output.images, run.count * M);
    let (rows, length) = (M.min(images.height - run.top), across.min(images.width - run.left));
    pixels.resize(pixels.len().max(8 * M * across), 0.0);
    for half in [0, LANES / 2] {
        for y in 0..rows {
            let lanes = &lanes[y * across..][..length];
            rows_from_lanes::<V>(lanes, half, &mut pixels[y * across..], M * across);
        }
        for channel in 0..8 {
            let index = run.image * output.channels + first + half + channel;
            let pixels = &pixels[channel * M * across..];
            let mut plane = output.planes[index].lock().unwrap_or_else(PoisonError::into_inner);
            for y in 0..rows {
                let at = (run.top + y) * images.width + run.left;
                let (plane, pixels) = (&mut plane[at..][..length], &pixels[y * across..][..length]);
                if let Some(image) = output.image {
                    let image = &image[index * images.plane() + at..][..length];
                    for ((to, pixel), more) in plane.iter_mut().zip(pixels).zip(image) {
                        *to = pixel + more;
                    }
                } else {
                    plane.copy_from_slice(pixels);
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

/// The reverse of [`lanes_from_rows`]: a row begins at each multiple of `stride`.
#[inline(always)]
fn rows_from_lanes<V: Vector>(lanes: &[Lane], half: usize, rows: &mut [f32], stride: usize) {
    for at in eights(lanes.len()) {
        let mut block = [[0.0; 8]; 8];
        for (pixel, lane) in block.iter_mut().zip(&lanes[at..]) {
            pixel.copy_from_slice(&lane[half..half + 8]);
        }
        V::transpose(&mut block);
        for (channel, row) in block.iter().enumerate() {
            rows[channel * stride + at..][..8].copy_from_slice(row);
        }
    }
    if lanes.len() < 8 {
        for (x, lane) in lanes.iter().enumerate() {
            for channel in 0..8 {
                rows[channel * stride + x] = lane[half + channel];
            }
        }
    }
}

/// Where each eight of `length` start. The last may overlap the one before. There are none if `length` is less than eight.
#[inline(always)]
fn eights(length: usize) -> impl Iterator<Item = usize> {
    let last = length.checked_sub(8);
    (0..length).step_by(8).filter_map(move |at| last.map(|last| at.min(last)))
}
