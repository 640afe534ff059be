//! Sixteen channels side by side, the unit of all data here, and the processor's vectors that work on them. Code for
//! vectors is written once and compiled for each [`Level`](super::level::Level).

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

#[cfg(target_arch = "x86_64")]
pub use super::x86::prefetch;

/// Asks for the memory of some values. Here it is the processor's own business.
#[cfg(not(target_arch = "x86_64"))]
pub fn prefetch(_: &[f32]) {}

/// Sixteen channels of one position.
pub type Lane = [f32; LANES];
/// Channels in a [`Lane`].
pub const LANES: usize = 16;
pub const ZERO: Lane = [0.0; LANES];

/// Tiles that are worked on together, at most. Their weights are transformed once.
pub const PIECE: usize = 64;
/// One position of a piece's tiles. It has one lane more than tiles: a power of two would put all positions into the same
/// sets of the cache.
pub type Row = [Lane; PIECE + 1];
/// Sixteen channels of a piece, transformed: N × N positions.
pub type Grid<const N: usize> = [[Row; N]; N];

/// Lanes in a [`Grid`].
pub const fn of_grid(side: usize) -> usize {
    side * side * (PIECE + 1)
}

pub fn grids<const N: usize>(lanes: &[Lane]) -> &[Grid<N>] {
    lanes.as_chunks().0.as_chunks().0.as_chunks().0
}

pub fn grids_mut<const N: usize>(lanes: &mut [Lane]) -> &mut [Grid<N>] {
    lanes.as_chunks_mut().0.as_chunks_mut().0.as_chunks_mut().0
}

/// Makes room for `length` lanes.
pub fn grow(lanes: &mut Vec<Lane>, length: usize) {
    if lanes.len() < length {
        lanes.resize(length, ZERO);
    }
}

/// A part of a [`Lane`], in a register.
///
/// Its methods are inlined into functions that are compiled for the level, which run only where the processor has its
/// instructions: see [`for_each_level`](super::level::for_each_level).
pub trait Vector: Copy {
    /// Values in a vector. A lane is one or more vectors.
    const WIDTH: usize;
    /// Whether a product and a sum are one instruction, which rounds once.
    const IS_FUSED: bool;
    /// The part of the lane that starts at `at`.
    fn load(lane: &Lane, at: usize) -> Self;
    fn store(self, lane: &mut Lane, at: usize);
    fn splat(value: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn subtract(self, other: Self) -> Self;
    /// factor × self + other
    fn times_plus(self, factor: f32, other: Self) -> Self;
    fn times(self, factor: f32) -> Self;
    fn times_each(self, other: Self) -> Self;

    /// Swaps rows with columns.
    #[inline(always)]
    fn transpose(rows: &mut [[f32; 8]; 8]) {
        *rows = std::array::from_fn(|y| std::array::from_fn(|x| rows[x][y]));
    }
}

/// Four values, which every compiler target has vectors for.
#[derive(Clone, Copy)]
pub struct Four([f32; 4]);

impl Four {
    #[inline(always)]
    fn each(self, other: Self, of: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|l| of(self.0[l], other.0[l])))
    }
}

impl Vector for Four {
    const WIDTH: usize = 4;
    const IS_FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    fn load(lane: &Lane, at: usize) -> Self {
        Self(std::array::from_fn(|l| lane[at + l]))
    }

    #[inline(always)]
    fn store(self, lane: &mut Lane, at: usize) {
        lane[at..at + 4].copy_from_slice(&self.0);
    }

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.each(other, |a, b| a + b)
    }

    #[inline(always)]
    fn subtract(self, other: Self) -> Self {
        self.each(other, |a, b| a - b)
    }

    #[inline(always)]
    fn times_plus(self, factor: f32, other: Self) -> Self {
        // Where it is not one instruction, `mul_add` is a slow call.
        self.each(other, |a, b| if Self::IS_FUSED { a.mul_add(factor, b) } else { a * factor + b })
    }

    #[inline(always)]
    fn times(self, factor: f32) -> Self {
        self.each(self, |a, _| a * factor)
    }

    #[inline(always)]
    fn times_each(self, other: Self) -> Self {
        self.each(other, |a, b| a * b)
    }
}
