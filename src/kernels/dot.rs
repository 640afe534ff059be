//! The inner loop of int8 layers: sums of products for a tile of rows and one block of output channels, kept in registers.
//!
//! Weights are unsigned (128 is added to each), because the processors' instructions take one signed and one unsigned
//! factor. All sums are exact, so every processor gives the same results.

#![expect(unsafe_code, reason = "instructions that only some processors have")]

use super::rounding::quantize;

/// Output channels in a block of weights.
pub const COLUMNS: usize = 16;
/// Inputs that one instruction multiplies and adds up.
pub const DEPTH: usize = 4;
/// Sixteen output channels' weights for four inputs: [`COLUMNS`] times [`DEPTH`].
pub type Quads = [u8; COLUMNS * DEPTH];
/// The sums of one row.
pub type Sums = [i32; COLUMNS];

/// Which instructions multiply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dot {
    /// Those that every processor has.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// `vpdpbusd` with vectors of 32 bytes.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// The same with 64 bytes.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
}

/// Whether the processor has instructions that make int8 faster than float32.
pub fn multiplies_int8() -> bool {
    Dot::best() != Dot::Portable
}

impl Dot {
    /// The fastest of this processor.
    pub fn best() -> Self {
        Self::all().pop().unwrap_or(Self::Portable)
    }

    /// All that this processor has, the fastest last.
    pub fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut all = vec![Self::Portable];
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(Self::Avx2);
                if is_x86_feature_detected!("avxvnni") {
                    all.push(Self::AvxVnni);
                }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
                    all.push(Self::Avx512Vnni);
                }
            }
            all
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Portable]
    }
}

/// A way to multiply tiles of `T` rows. Its functions may run only where the processor has its instructions.
pub trait Multiply<const T: usize> {
    /// Four inputs of a row, as the instructions read them.
    type Quad: Copy + Default + Send;

    fn quad(values: [i8; DEPTH]) -> Self::Quad;

    /// Writes `row` in eight bits. Returns its scale and the sum of the numbers.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32);

    /// Adds the products of all inputs to `sums`. `weights` and `values` are as long.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn dot(weights: &[Quads], values: &[[Self::Quad; T]], sums: &mut [Sums; T]);
}

/// Plain code, which compilers make vectors of.
pub struct Portable;

impl<const T: usize> Multiply<T> for Portable {
    type Quad = [i16; DEPTH];

    fn quad(values: [i8; DEPTH]) -> Self::Quad {
        values.map(i16::from)
    }

    unsafe fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32) {
        quantize(row, numbers)
    }

    unsafe fn dot(weights: &[Quads], values: &[[Self::Quad; T]], sums: &mut [Sums; T]) {
        for (weights, values) in weights.iter().zip(values) {
            let weights = weights.as_chunks::<DEPTH>().0;
            for (sums, value) in sums.iter_mut().zip(values) {
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    let products = weights.iter().zip(value).map(|(w, v)| i32::from(*w) * i32::from(*v));
                    *sum = products.fold(*sum, i32::wrapping_add);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512Vnni, AvxVnni};

#[cfg(target_arch = "x86_64")]
#[expect(clippy::cast_ptr_alignment, reason = "loads and stores that need no alignment")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256i, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_cvtepu8_epi16,
        _mm256_dpbusd_avx_epi32, _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
        _mm256_permute4x64_epi64, _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_setzero_si256,
        _mm256_storeu_si256, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512,
    };

    use super::{Multiply, Quads, Sums, quantize};

    /// Numbers of sixteen bits: with eight, AVX2 would cut off large sums.
    pub struct Avx2;
    pub struct AvxVnni;
    pub struct Avx512Vnni;

    impl<const T: usize> Multiply<T> for Avx2 {
        type Quad = i64;

        fn quad(values: [i8; 4]) -> i64 {
            let [a, b, c, d] = values.map(|value| i16::from(value).to_le_bytes());
            i64::from_le_bytes([a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]])
        }

        #[target_feature(enable = "avx2,fma")]
        unsafe fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32) {
            quantize(row, numbers)
        }

        #[target_feature(enable = "avx2,fma")]
        unsafe fn dot(weights: &[Quads], values: &[[i64; T]], sums: &mut [Sums; T]) {
            // There are registers for the sums of eight columns.
            for half in [0, 8] {
                // Two sums for each column, which are added at the end.
                let mut acc = [[_mm256_setzero_si256(); 2]; T];
                for (weights, values) in weights.iter().zip(values) {
                    let weights = &weights[half * 4..][..32];
                    // SAFETY: the slice is twice as long as each vector.
                    let (low, high) = unsafe {
                        let low = _mm_loadu_si128(weights.as_ptr().cast::<__m128i>());
                        (low, _mm_loadu_si128(weights[16..].as_ptr().cast::<__m128i>()))
                    };
                    let (low, high) = (_mm256_cvtepu8_epi16(low), _mm256_cvtepu8_epi16(high));
                    for t in 0..T {
                        let value = _mm256_set1_epi64x(values[t]);
                        acc[t][0] = _mm256_add_epi32(acc[t][0], _mm256_madd_epi16(low, value));
                        acc[t][1] = _mm256_add_epi32(acc[t][1], _mm256_madd_epi16(high, value));
                    }
                }
                for (acc, sums) in acc.iter().zip(sums.iter_mut()) {
                    // The halves of a vector are added apart, so that the middle columns change places.
                    let pairs = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(acc[0], acc[1]));
                    let sums = sums[half..half + 8].as_mut_ptr().cast::<__m256i>();
                    // SAFETY: the slice is as long as the vector.
                    unsafe { _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), pairs)) };
                }
            }
        }
    }

    impl<const T: usize> Multiply<T> for AvxVnni {
        type Quad = i32;

        fn quad(values: [i8; 4]) -> i32 {
            i32::from_le_bytes(values.map(i8::cast_unsigned))
        }

        #[target_feature(enable = "avx2,fma,avxvnni")]
        unsafe fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32) {
            quantize(row, numbers)
        }

        #[target_feature(enable = "avx2,fma,avxvnni")]
        unsafe fn dot(weights: &[Quads], values: &[[i32; T]], sums: &mut [Sums; T]) {
            let mut acc = [[_mm256_setzero_si256(); 2]; T];
            for (weights, values) in weights.iter().zip(values) {
                // SAFETY: the array is twice as long as each vector.
                let (low, high) = unsafe {
                    let low = _mm256_loadu_si256(weights.as_ptr().cast::<__m256i>());
                    (low, _mm256_loadu_si256(weights[32..].as_ptr().cast::<__m256i>()))
                };
                for t in 0..T {
                    let value = _mm256_set1_epi32(values[t]);
                    acc[t][0] = _mm256_dpbusd_avx_epi32(acc[t][0], low, value);
                    acc[t][1] = _mm256_dpbusd_avx_epi32(acc[t][1], high, value);
                }
            }
            for (acc, sums) in acc.iter().zip(sums.iter_mut()) {
                for (acc, sums) in acc.iter().zip(sums.chunks_exact_mut(8)) {
                    let sums = sums.as_mut_ptr().cast::<__m256i>();
                    // SAFETY: the slice is as long as the vector.
                    unsafe { _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), *acc)) };
                }
            }
        }
    }

    impl<const T: usize> Multiply<T> for Avx512Vnni {
        type Quad = i32;

        fn quad(values: [i8; 4]) -> i32 {
            i32::from_le_bytes(values.map(i8::cast_unsigned))
        }

        #[target_feature(enable = "avx2,fma,avx512f,avx512vnni")]
        unsafe fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32) {
            quantize(row, numbers)
        }

        #[target_feature(enable = "avx2,fma,avx512f,avx512vnni")]
        unsafe fn dot(weights: &[Quads], values: &[[i32; T]], sums: &mut [Sums; T]) {
            // SAFETY: an array is as long as the vector.
            let mut acc: [__m512i; T] =
                std::array::from_fn(|t| unsafe { _mm512_loadu_si512(sums[t].as_ptr().cast::<__m512i>()) });
            for (weights, values) in weights.iter().zip(values) {
                // SAFETY: as above.
                let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast::<__m512i>()) };
                for t in 0..T {
                    acc[t] = _mm512_dpbusd_epi32(acc[t], weights, _mm512_set1_epi32(values[t]));
                }
            }
            for (acc, sums) in acc.iter().zip(sums.iter_mut()) {
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast::<__m512i>(), *acc) };
            }
        }
    }
}
