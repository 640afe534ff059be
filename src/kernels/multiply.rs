//! The inner loop: sums of products for a few tiles and output channels, kept in registers.

#![expect(unsafe_code, reason = "instructions that only some processors have")]

use super::level::Level;
use super::vector::{Four, LANES, Lane, Vector};

/// The sums of products of one position for a few tiles.
pub struct Product<'a> {
    /// Lanes of output channels.
    pub width: usize,
    pub tiles: usize,
    /// [depth][width]
    pub weights: &'a [Lane],
    /// [depth / 16][tiles], sixteen input channels each.
    pub values: &'a [Lane],
}

impl Product<'_> {
    /// Adds the sums over all depths to `sums` ([tiles][width]), or puts them there if those are not there yet.
    pub fn add_to(&self, level: Level, sums: &mut [Lane], is_first: bool) {
        let Self { width, tiles, weights, values } = *self;
        assert_eq!(weights.len() * tiles, values.len() * LANES * width);
        assert_eq!(sums.len(), tiles * width);
        macro_rules! by_tiles {
            ($function:path, $width:literal: $($tiles:literal)*) => {
                match tiles {
                    $($tiles => {
                        let (weights, values) = (weights.as_chunks::<$width>().0, values.as_chunks::<$tiles>().0);
                        // SAFETY: a level with these instructions is only made where the processor has them.
                        unsafe { $function(weights, values, sums.as_chunks_mut::<$width>().0, is_first) }
                    })*
                    _ => unreachable!("groups of {tiles} tiles"),
                }
            };
        }
        match (level, width) {
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, 1) => by_tiles!(avx2, 1: 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 1) => by_tiles!(avx512, 1: 1 2 3 4 5 6 7 8 9 10 11 12),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512, 2) => by_tiles!(avx512, 2: 1 2 3 4 5 6 7 8 9 10 11 12),
            (Level::Baseline, 1) => by_tiles!(baseline, 1: 1 2 3 4 5 6),
            _ => unreachable!("{width} lanes at {level:?}"),
        }
    }
}

/// Is `unsafe` only to have the same form as its siblings.
unsafe fn baseline<const T: usize>(
    weights: &[[Lane; 1]],
    values: &[[Lane; T]],
    sums: &mut [[Lane; 1]],
    is_first: bool,
) {
    for part in (0..LANES).step_by(Four::WIDTH) {
        let mut acc = [Four::splat(0.0); T];
        for (weights, values) in weights.as_chunks::<LANES>().0.iter().zip(values) {
            for k in 0..LANES {
                let row = Four::load(&weights[k][0], part);
                for t in 0..T {
                    acc[t] = row.times_plus(values[t][k], acc[t]);
                }
            }
        }
        for (sum, acc) in sums.iter_mut().zip(acc) {
            let total = if is_first { acc } else { acc.add(Four::load(&sum[0], part)) };
            total.store(&mut sum[0], part);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2<const T: usize>(weights: &[[Lane; 1]], values: &[[Lane; T]], sums: &mut [[Lane; 1]], is_first: bool) {
    use std::arch::x86_64::{
        _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };
    let sums: &mut [[Lane; 1]; T] = sums.try_into().expect("a sum for each tile");
    let mut acc = [[_mm256_setzero_ps(); 2]; T];
    for (weights, values) in weights.as_chunks::<LANES>().0.iter().zip(values) {
        for k in 0..LANES {
            let lane = &weights[k][0];
            // SAFETY: a lane is two vectors long.
            let (low, high) =
                unsafe { (_mm256_loadu_ps(lane.as_ptr()), _mm256_loadu_ps(lane[8..].as_ptr())) };
            for t in 0..T {
                let value = _mm256_set1_ps(values[t][k]);
                acc[t][0] = _mm256_fmadd_ps(value, low, acc[t][0]);
                acc[t][1] = _mm256_fmadd_ps(value, high, acc[t][1]);
            }
        }
    }
    for (acc, sum) in acc.iter().zip(sums) {
        for (half, acc) in sum[0].chunks_exact_mut(8).zip(acc) {
            // SAFETY: as above.
            unsafe {
                let total = if is_first { *acc } else { _mm256_add_ps(_mm256_loadu_ps(half.as_ptr()), *acc) };
                _mm256_storeu_ps(half.as_mut_ptr(), total);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512<const W: usize, const T: usize>(
    weights: &[[Lane; W]],
    values: &[[Lane; T]],
    sums: &mut [[Lane; W]],
    is_first: bool,
) {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    let sums: &mut [[Lane; W]; T] = sums.try_into().expect("a sum for each tile");
    let mut acc = [[_mm512_setzero_ps(); W]; T];
    for (weights, values) in weights.as_chunks::<LANES>().0.iter().zip(values) {
        for k in 0..LANES {
            let mut row = [_mm512_setzero_ps(); W];
            for w in 0..W {
                // SAFETY: a lane is as long as the vector.
                row[w] = unsafe { _mm512_loadu_ps(weights[k][w].as_ptr()) };
            }
            for t in 0..T {
                let value = _mm512_set1_ps(values[t][k]);
                for w in 0..W {
                    acc[t][w] = _mm512_fmadd_ps(value, row[w], acc[t][w]);
                }
            }
        }
    }
    for (acc, sum) in acc.iter().zip(sums) {
        for w in 0..W {
            // SAFETY: as above.
            unsafe {
                let total =
                    if is_first { acc[w] } else { _mm512_add_ps(_mm512_loadu_ps(sum[w].as_ptr()), acc[w]) };
                _mm512_storeu_ps(sum[w].as_mut_ptr(), total);
            }
        }
    }
}
