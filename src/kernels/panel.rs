//! The weights of 3×3 kernels, transformed when they are needed.
//!
//! Transformed weights would take four times their memory, and reading them would take longer than making them anew: a
//! panel is used for all tiles of a chunk while it is in the cache.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use super::level::{Level, for_each_level};
use super::minimal::Minimal;
use super::vector::{Four, LANES, Lane, Vector};
#[cfg(target_arch = "x86_64")]
use super::x86::{Eight, Sixteen};

/// Sixteen input channels' weights at one position: \[16\]\[width\], and a lane that is not used. A power of two would put
/// all positions into the same sets of the cache.
pub const fn of_row(width: usize) -> usize {
    LANES * width + 1
}

/// The transformed weights of sixteen input channels. `R` is [`of_row`].
pub type Panel<const N: usize, const R: usize> = [[[Lane; R]; N]; N];

pub fn panels<const N: usize, const R: usize>(lanes: &[Lane]) -> &[Panel<N, R>] {
    lanes.as_chunks().0.as_chunks().0.as_chunks().0
}

pub fn panels_mut<const N: usize, const R: usize>(lanes: &mut [Lane]) -> &mut [Panel<N, R>] {
    lanes.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0
}

/// Transforms the weights of some input channels (each of `weights` is \[depth\]\[9\], for sixteen output channels) into
/// `panel` (\[depth / 16\] of [`Panel`]).
pub fn transform_weights<A: Minimal<N, M>, const N: usize, const M: usize>(
    level: Level,
    weights: &[&[Lane]],
    panel: &mut [Lane],
) {
    match *weights {
        [one] => transform_one::<A, N, M>(level, &[one], panels_mut(panel)),
        [one, two] => transform_two::<A, N, M>(level, &[one, two], panels_mut(panel)),
        _ => unreachable!("{} lanes of outputs", weights.len()),
    }
}

for_each_level! {
    transform_one(weights: &[&[Lane]; 1], panel: &mut [Panel<N, { of_row(1) }>]) = one
}

for_each_level! {
    transform_two(weights: &[&[Lane]; 2], panel: &mut [Panel<N, { of_row(2) }>]) = two
}

#[inline(always)]
fn one<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    weights: &[&[Lane]; 1],
    panel: &mut [Panel<N, { of_row(1) }>],
) {
    transform::<V, A, N, M, 1, { of_row(1) }>(weights, panel);
}

#[inline(always)]
fn two<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    weights: &[&[Lane]; 2],
    panel: &mut [Panel<N, { of_row(2) }>],
) {
    transform::<V, A, N, M, 2, { of_row(2) }>(weights, panel);
}

#[inline(always)]
fn transform<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize, const W: usize, const R: usize>(
    weights: &[&[Lane]; W],
    panel: &mut [Panel<N, R>],
) {
    for at in 0..W {
        let weights = weights[at].as_chunks::<9>().0.as_chunks::<LANES>().0;
        for (weights, panel) in weights.iter().zip(&mut *panel) {
            for (k, g) in weights.iter().enumerate() {
                for part in (0..LANES).step_by(V::WIDTH) {
                    let mut columns = [[V::splat(0.0); N]; 3];
                    for x in 0..3 {
                        let column =
                            [V::load(&g[x], part), V::load(&g[3 + x], part), V::load(&g[6 + x], part)];
                        columns[x] = A::weights(&column);
                    }
                    for y in 0..N {
                        let row = A::weights(&[columns[0][y], columns[1][y], columns[2][y]]);
                        for x in 0..N {
                            row[x].store(&mut panel[y][x][k * W + at], part);
                        }
                    }
                }
            }
        }
    }
}
