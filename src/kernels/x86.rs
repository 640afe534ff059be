//! The vectors of x86-64.
//!
//! Their methods are safe to call only where the processor has the instructions. They are inlined into functions that are
//! compiled for a level, and those run only at that level: nothing else makes a vector.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]
#![expect(unsafe_code, reason = "instructions that only some processors have")]

use std::arch::x86_64::{
    __m256, __m512, _MM_HINT_T1, _mm_prefetch, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps,
    _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_ps,
    _mm256_storeu_ps, _mm256_sub_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_add_ps, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_sub_ps,
};

use super::vector::{LANES, Lane, Vector};

/// AVX2's and FMA's.
#[derive(Clone, Copy)]
pub struct Eight(__m256);
/// AVX-512's.
#[derive(Clone, Copy)]
pub struct Sixteen(__m512);

impl Vector for Eight {
    const WIDTH: usize = 8;
    const IS_FUSED: bool = true;

    #[inline(always)]
    fn load(lane: &Lane, at: usize) -> Self {
        // SAFETY: see the head of this file; the slice is as long as the vector.
        Self(unsafe { _mm256_loadu_ps(lane[at..at + 8].as_ptr()) })
    }

    #[inline(always)]
    fn store(self, lane: &mut Lane, at: usize) {
        // SAFETY: see the head of this file; the slice is as long as the vector.
        unsafe { _mm256_storeu_ps(lane[at..at + 8].as_mut_ptr(), self.0) };
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times_plus(self, factor: f32, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_fmadd_ps(self.0, _mm256_set1_ps(factor), other.0) })
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_mul_ps(self.0, _mm256_set1_ps(factor)) })
    }

    #[inline(always)]
    fn times_each(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn transpose(rows: &mut [[f32; 8]; 8]) {
        // SAFETY: see the head of this file.
        unsafe { transpose(rows) };
    }
}

impl Vector for Sixteen {
    const WIDTH: usize = LANES;
    const IS_FUSED: bool = true;

    #[inline(always)]
    fn load(lane: &Lane, _: usize) -> Self {
        // SAFETY: see the head of this file; the slice is as long as the vector.
        Self(unsafe { _mm512_loadu_ps(lane.as_ptr()) })
    }

    #[inline(always)]
    fn store(self, lane: &mut Lane, _: usize) {
        // SAFETY: see the head of this file; the slice is as long as the vector.
        unsafe { _mm512_storeu_ps(lane.as_mut_ptr(), self.0) };
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn times_plus(self, factor: f32, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_fmadd_ps(self.0, _mm512_set1_ps(factor), other.0) })
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_mul_ps(self.0, _mm512_set1_ps(factor)) })
    }

    #[inline(always)]
    fn times_each(self, other: Self) -> Self {
        // SAFETY: see the head of this file.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn transpose(rows: &mut [[f32; 8]; 8]) {
        // SAFETY: see the head of this file.
        unsafe { transpose(rows) };
    }
}

/// Asks for the memory of some values, to be in the second cache when it is needed.
#[inline(always)]
pub fn prefetch(values: &[f32]) {
    for line in values.chunks(LANES) {
        // SAFETY: every x86-64 processor has this instruction, which changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: &mut [[f32; 8]; 8]) {
    let mut r = [_mm256_setzero_ps(); 8];
    for i in 0..8 {
        // SAFETY: a row is as long as the vector.
        r[i] = unsafe { _mm256_loadu_ps(rows[i].as_ptr()) };
    }
    // pairs of rows, then fours, within each half; then the halves
    let pairs: [__m256; 8] = [
        _mm256_unpacklo_ps(r[0], r[1]),
        _mm256_unpackhi_ps(r[0], r[1]),
        _mm256_unpacklo_ps(r[2], r[3]),
        _mm256_unpackhi_ps(r[2], r[3]),
        _mm256_unpacklo_ps(r[4], r[5]),
        _mm256_unpackhi_ps(r[4], r[5]),
        _mm256_unpacklo_ps(r[6], r[7]),
        _mm256_unpackhi_ps(r[6], r[7]),
    ];
    let fours: [__m256; 8] = [
        _mm256_shuffle_ps::<0x44>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0xee>(pairs[0], pairs[2]),
        _mm256_shuffle_ps::<0x44>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0xee>(pairs[1], pairs[3]),
        _mm256_shuffle_ps::<0x44>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0xee>(pairs[4], pairs[6]),
        _mm256_shuffle_ps::<0x44>(pairs[5], pairs[7]),
        _mm256_shuffle_ps::<0xee>(pairs[5], pairs[7]),
    ];
    for i in 0..4 {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(rows[i].as_mut_ptr(), _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]));
            _mm256_storeu_ps(
                rows[i + 4].as_mut_ptr(),
                _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]),
            );
        }
    }
}
