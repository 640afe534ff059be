//! The inner loop: sums of products for a few tiles and output channels, kept in registers.

#![expect(unsafe_code, reason = "instructions that only some processors have")]

use super::level::Level;
use super::panel::{Panel, of_row, panels};
use super::vector::{Four, Grid, LANES, Lane, Vector, prefetch};

/// Products of some input channels, whose sums are wanted.
pub struct Product<'a, const N: usize> {
    /// [depth / 16] of [`Panel`], for `width` lanes of output channels.
    pub panel: &'a [Lane],
    /// [depth / 16]
    pub values: &'a [Grid<N>],
    /// Whether there are no sums yet.
    pub is_first: bool,
    /// The weights that are transformed next. Meanwhile they come from memory.
    pub next: [&'a [Lane]; 2],
}

/// Where the inner loop is in a grid.
#[derive(Clone, Copy)]
struct Place {
    y: usize,
    x: usize,
    /// The first of its tiles.
    tile: usize,
}

impl<const N: usize> Product<'_, N> {
    /// Adds the sums over all depths for the first `tiles` of a piece to `sums`, a grid for each lane of output channels.
    pub fn add_to(&self, level: Level, tiles: usize, sums: &mut [Grid<N>]) {
        // Nearly equal groups.
        let groups = tiles.div_ceil(level.tiles()).max(1);
        let calls = N * N * groups;
        let [mut first, mut second] = self.next.map(|next| next.chunks(next.len().div_ceil(calls).max(1)));
        for (y, x) in (0..N * N).map(|position| (position / N, position % N)) {
            for group in 0..groups {
                for lanes in first.next().into_iter().chain(second.next()) {
                    prefetch(lanes.as_flattened());
                }
                let (tile, end) = (tiles * group / groups, tiles * (group + 1) / groups);
                self.add_group(level, Place { y, x, tile }, end - tile, sums);
            }
        }
    }

    fn add_group(&self, level: Level, place: Place, tiles: usize, sums: &mut [Grid<N>]) {
        macro_rules! by_tiles {
            ($function:ident, $width:literal: $($tiles:literal)*) => {{
                let panels = panels::<N, { of_row($width) }>(self.panel);
                let sums: &mut [Grid<N>; $width] = sums.try_into().expect("a grid for each lane");
                match tiles {
                    $($tiles => {
                        // SAFETY: a level with these instructions is only made where the processor has them.
                        unsafe {
                            $function::<N, $width, { of_row($width) }, $tiles>(
                                panels, self.values, place, sums, self.is_first,
                            )
                        }
                    })*
                    _ => unreachable!("groups of {tiles} tiles"),
                }
            }};
        }
        match (level, sums.len()) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, 1) => by_tiles!(avx2, 1: 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 1) => by_tiles!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 2) => by_tiles!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
            (Level::Baseline, 1) => by_tiles!(baseline, 1: 1 2 3 4 5 6),
            (_, width) => unreachable!("{width} lanes at {level:?}"),
        }
    }
}

/// A few tiles of a row.
#[inline]
fn few<const T: usize, const N: usize>(grid: &Grid<N>, at: Place) -> &[Lane; T] {
    grid[at.y][at.x][at.tile..].first_chunk().expect("the tiles are in the piece")
}

#[inline]
fn few_mut<const T: usize, const N: usize>(grid: &mut Grid<N>, at: Place) -> &mut [Lane; T] {
    grid[at.y][at.x][at.tile..].first_chunk_mut().expect("the tiles are in the piece")
}

/// Is `unsafe` only to have the same form as its siblings.
unsafe fn baseline<const N: usize, const W: usize, const R: usize, const T: usize>(
    panels: &[Panel<N, R>],
    values: &[Grid<N>],
    at: Place,
    sums: &mut [Grid<N>; W],
    is_first: bool,
) {
    for part in (0..LANES).step_by(Four::WIDTH) {
        let mut acc = [[Four::splat(0.0); W]; T];
        for (panel, values) in panels.iter().zip(values) {
            let (rows, values) = (&panel[at.y][at.x], few::<T, N>(values, at));
            for k in 0..LANES {
                for w in 0..W {
                    let row = Four::load(&rows[k * W + w], part);
                    for t in 0..T {
                        acc[t][w] = row.times_plus(values[t][k], acc[t][w]);
                    }
                }
            }
        }
        for (w, sums) in sums.iter_mut().enumerate() {
            for (sum, acc) in few_mut::<T, N>(sums, at).iter_mut().zip(&acc) {
                let total = if is_first { acc[w] } else { acc[w].add(Four::load(sum, part)) };
                total.store(sum, part);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const N: usize, const W: usize, const R: usize, const T: usize>(
    panels: &[Panel<N, R>],
    values: &[Grid<N>],
    at: Place,
    sums: &mut [Grid<N>; W],
    is_first: bool,
) {
    use std::arch::x86_64::{
        _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let mut acc = [[[_mm256_setzero_ps(); 2]; W]; T];
    for (panel, values) in panels.iter().zip(values) {
        let (rows, values) = (&panel[at.y][at.x], few::<T, N>(values, at));
        for k in 0..LANES {
            let mut row = [[_mm256_setzero_ps(); 2]; W];
            for w in 0..W {
                let lane = &rows[k * W + w];
                // SAFETY: a lane is two vectors long.
                row[w] = unsafe { [_mm256_loadu_ps(lane.as_ptr()), _mm256_loadu_ps(lane[8..].as_ptr())] };
            }
            for t in 0..T {
                let value = _mm256_set1_ps(values[t][k]);
                for w in 0..W {
                    acc[t][w][0] = _mm256_fmadd_ps(value, row[w][0], acc[t][w][0]);
                    acc[t][w][1] = _mm256_fmadd_ps(value, row[w][1], acc[t][w][1]);
                }
            }
        }
    }
    for w in 0..W {
        let sums = few_mut::<T, N>(&mut sums[w], at);
        for t in 0..T {
            for (half, acc) in sums[t].as_chunks_mut::<8>().0.iter_mut().zip(acc[t][w]) {
                // SAFETY: an array is as long as the vector.
                unsafe {
                    let total =
                        if is_first { acc } else { _mm256_add_ps(_mm256_loadu_ps(half.as_ptr()), acc) };
                    _mm256_storeu_ps(half.as_mut_ptr(), total);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<const N: usize, const W: usize, const R: usize, const T: usize>(
    panels: &[Panel<N, R>],
    values: &[Grid<N>],
    at: Place,
    sums: &mut [Grid<N>; W],
    is_first: bool,
) {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    let mut acc = [[_mm512_setzero_ps(); W]; T];
    for (panel, values) in panels.iter().zip(values) {
        let (rows, values) = (&panel[at.y][at.x], few::<T, N>(values, at));
        for k in 0..LANES {
            let mut row = [_mm512_setzero_ps(); W];
            for w in 0..W {
                // SAFETY: a lane is as long as the vector.
                row[w] = unsafe { _mm512_loadu_ps(rows[k * W + w].as_ptr()) };
            }
            for t in 0..T {
                let value = _mm512_set1_ps(values[t][k]);
                for w in 0..W {
                    acc[t][w] = _mm512_fmadd_ps(value, row[w], acc[t][w]);
                }
            }
        }
    }
    for w in 0..W {
        let sums = few_mut::<T, N>(&mut sums[w], at);
        for t in 0..T {
            // SAFETY: as above.
            unsafe {
                let (acc, sum) = (acc[t][w], sums[t].as_mut_ptr());
                let total = if is_first { acc } else { _mm512_add_ps(_mm512_loadu_ps(sum), acc) };
                _mm512_storeu_ps(sum, total);
            }
        }
    }
}
