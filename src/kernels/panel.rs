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

/// Lanes from one position of a panel to the next. A power of two would put all positions into the same lines of the
/// cache.
pub fn stride(depth: usize, width: usize) -> usize {
    depth * width + 1
}

for_each_level! {
    /// Transforms the weights of some input channels (\[depth\]\[9\]) into a panel: \[N²\], each \[depth\]\[width\] and one
    /// lane that is not used. They go to lane `at` of each `width`.
    transform_weights(weights: &[Lane], panel: &mut [Lane], width: usize, at: usize) = transform
}

#[inline(always)]
fn transform<V: Vector, A: Minimal<N, M>, const N: usize, const M: usize>(
    weights: &[Lane],
    panel: &mut [Lane],
    width: usize,
    at: usize,
) {
    let stride = stride(weights.len() / 9, width);
    for (depth, g) in weights.as_chunks::<9>().0.iter().enumerate() {
        for part in (0..LANES).step_by(V::WIDTH) {
            let mut columns = [[V::splat(0.0); N]; 3];
            for x in 0..3 {
                let column = [V::load(&g[x], part), V::load(&g[3 + x], part), V::load(&g[6 + x], part)];
                columns[x] = A::weights(&column);
            }
            for y in 0..N {
                let row = A::weights(&[columns[0][y], columns[1][y], columns[2][y]]);
                for x in 0..N {
                    row[x].store(&mut panel[(y * N + x) * stride + depth * width + at], part);
                }
            }
        }
    }
}
