//! The work on one block of queries of a head, and how keys and values are packed for it.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::rows::{load_queries, store_results};
use super::softmax::State;
use crate::kernels::level::{Level, in_tiles};
use crate::kernels::vector::{LANES, Lane, Vector};

/// Lanes of queries that are worked on together.
pub const LANES_OF_QUERIES: usize = 2;
/// One value of each of these queries. No vector of them lies in two lines of the cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Queries(pub [Lane; LANES_OF_QUERIES]);

impl Queries {
    pub const ZERO: Self = Self([[0.0; LANES]; LANES_OF_QUERIES]);
    const ONES: Self = Self([[1.0; LANES]; LANES_OF_QUERIES]);
}

/// Changes each value by another.
#[inline(always)]
pub fn each(values: &mut Lane, others: &Lane, of: impl Fn(f32, f32) -> f32) {
    for (value, other) in values.iter_mut().zip(others) {
        *value = of(*value, *other);
    }
}

/// Queries that are worked on together.
const TOGETHER: usize = LANES * LANES_OF_QUERIES;
/// Queries in a task. They meet a block of keys while it is in the second cache.
pub const TASK: usize = PARTS * TOGETHER;
const PARTS: usize = 2;
/// Keys in a block, at most. Their scores stay in the first cache.
const KEYS: usize = 256;
/// Channels of keys and queries whose products are summed up at once. Those of the queries stay in the first cache.
const DEPTH: usize = 160;

/// Rows of a tile of sums in registers: keys or channels. The columns are queries.
const ROWS_AVX512: usize = 8;
const ROWS_AVX2: usize = 6;
const ROWS_BASELINE: usize = 4;

/// How the keys and values of a head are packed: blocks of keys, each [keys / rows][channels][rows] for the products with
/// queries, then [channels / rows][keys][rows] for the sums of values.
pub struct Shape {
    /// Of a head.
    pub channels: usize,
    keys: usize,
    /// Of a tile.
    rows: usize,
    /// Keys in each block but the last.
    in_block: usize,
}

impl Shape {
    pub fn new(level: Level, channels: usize, keys: usize) -> Self {
        let rows = match level {
            Level::Baseline => ROWS_BASELINE,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => ROWS_AVX2,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => ROWS_AVX512,
        };
        Self { channels, keys, rows, in_block: (KEYS / rows * rows).min(keys.next_multiple_of(rows)) }
    }

    pub fn blocks(&self) -> usize {
        self.keys.div_ceil(self.in_block)
    }

    pub fn keys_of(&self, block: usize) -> Range<usize> {
        block * self.in_block..self.keys.min((block + 1) * self.in_block)
    }

    /// Values in a packed block.
    pub fn of_block(&self) -> usize {
        self.in_block * (self.channels + self.padded())
    }

    pub fn of_head(&self) -> usize {
        self.blocks() * self.of_block()
    }

    /// The channels, with those that fill the last tile.
    fn padded(&self) -> usize {
        self.channels.next_multiple_of(self.rows)
    }
}

/// Where a head is in the tensors.
pub struct Head {
    pub image: usize,
    /// Its first channel.
    pub first: usize,
    /// The channels of all heads.
    pub row: usize,
}

impl Head {
    /// Some rows of its image, which has `total`.
    pub fn rows<'a>(&self, values: &'a [f32], total: usize, rows: Range<usize>) -> &'a [f32] {
        &values[(self.image * total + rows.start) * self.row..][..rows.len() * self.row]
    }

    /// Its channels in each of some rows.
    #[inline(always)]
    pub fn of_rows<'a>(&self, rows: &'a [f32], channels: usize) -> impl Iterator<Item = &'a [f32]> {
        let first = self.first;
        rows.chunks_exact(self.row).map(move |row| &row[first..first + channels])
    }
}

/// A block of a head's queries, with all keys and values.
pub struct Block<'a, 'o> {
    pub shape: &'a Shape,
    pub head: &'a Head,
    /// Rows with the channels of all heads.
    pub queries: &'a [f32],
    /// The head's.
    pub packed: &'a [f32],
    /// The rows of the results.
    pub rows: &'a Mutex<&'o mut [f32]>,
}

/// Memory that later blocks use again.
#[derive(Default)]
pub struct OfThread {
    /// [parts][channels]
    queries: Vec<Queries>,
    /// [parts][channels], with those that fill the last tile.
    sums: Vec<Queries>,
    /// [keys]
    scores: Vec<Queries>,
}

in_tiles! {
    pub pack(shape: &Shape, head: &Head, rows: [&[f32]; 2], packed: &mut [f32])
        = pack_block[ROWS_BASELINE, ROWS_AVX2, ROWS_AVX512]
}
in_tiles! {
    pub attend(block: &Block<'_, '_>, mine: &mut OfThread) = attend_block[ROWS_BASELINE, ROWS_AVX2, ROWS_AVX512]
}

/// Packs a block of keys and values, of which `rows` has the rows.
#[inline(always)]
fn pack_block<V: Vector, const R: usize>(
    shape: &Shape,
    head: &Head,
    [keys, values]: [&[f32]; 2],
    packed: &mut [f32],
) {
    let channels = shape.channels;
    let (packed_keys, packed_values) = packed.split_at_mut(shape.in_block * channels);
    let packed_keys = packed_keys.as_chunks_mut::<R>().0;
    for (tile, rows) in packed_keys.chunks_exact_mut(channels).zip(keys.chunks(R * head.row)) {
        let mut of_tile: [&[f32]; R] = [&[]; R];
        for (mine, row) in of_tile.iter_mut().zip(head.of_rows(rows, channels)) {
            *mine = row;
        }
        for (channel, values) in tile.iter_mut().enumerate() {
            *values = std::array::from_fn(|row| of_tile[row].get(channel).copied().unwrap_or_default());
        }
    }
    let count = values.len() / head.row;
    let packed_values = packed_values.as_chunks_mut::<R>().0;
    for (key, row) in head.of_rows(values, channels).enumerate() {
        let (tiles, rest) = row.as_chunks::<R>();
        for (index, values) in tiles.iter().enumerate() {
            packed_values[index * count + key] = *values;
        }
        if !rest.is_empty() {
            let mut last = [0.0; R];
            last[..rest.len()].copy_from_slice(rest);
            packed_values[tiles.len() * count + key] = last;
        }
    }
}

#[inline(always)]
fn attend_block<V: Vector, const R: usize>(block: &Block<'_, '_>, mine: &mut OfThread) {
    let &Block { shape, head, .. } = block;
    let (channels, padded) = (shape.channels, shape.padded());
    let parts = (block.queries.len() / head.row).div_ceil(TOGETHER);
    let OfThread { queries, sums, scores } = mine;
    let room = |rows: &mut Vec<Queries>, count: usize| {
        rows.resize(count.max(rows.len()), Queries::ZERO);
    };
    room(queries, PARTS * channels);
    room(sums, PARTS * padded);
    room(scores, shape.in_block);
    let scale = std::f32::consts::LOG2_E / as_float(channels).sqrt();
    for (queries, rows) in queries.chunks_mut(channels).zip(block.queries.chunks(TOGETHER * head.row)) {
        load_queries::<V>(head, rows, scale, queries);
    }
    let mut states = [State::START; PARTS];
    for (index, packed) in block.packed.chunks(shape.of_block()).enumerate() {
        let count = shape.keys_of(index).len();
        let (keys, values) = packed.split_at(shape.in_block * channels);
        let (keys, values) = (keys.as_chunks::<R>().0, values.as_chunks::<R>().0);
        for (part, state) in states.iter_mut().enumerate().take(parts) {
            let queries = &queries[part * channels..][..channels];
            for first in (0..channels).step_by(DEPTH) {
                let depths = first..channels.min(first + DEPTH);
                let tiles = scores.as_chunks_mut::<R>().0.iter_mut().zip(keys.chunks(channels));
                for (scores, keys) in tiles.take(count.div_ceil(R)) {
                    let before = (first > 0).then_some(&Queries::ONES);
                    add::<V, R>(&keys[depths.clone()], &queries[depths.clone()], before, scores);
                }
            }
            let scores = &mut scores[..count];
            let less = state.weigh::<V>(scores);
            let sums = &mut sums[part * padded..][..padded];
            let before = (index > 0).then_some(&less);
            for (sums, values) in sums.as_chunks_mut::<R>().0.iter_mut().zip(values.chunks(count)) {
                add::<V, R>(values, scores, before, sums);
            }
        }
    }
    let mut rows = block.rows.lock().unwrap_or_else(PoisonError::into_inner);
    for ((rows, sums), state) in
        rows.chunks_mut(TOGETHER * head.row).zip(sums.chunks_mut(padded)).zip(&states)
    {
        store_results::<V>(head, &mut sums[..channels], &state.sum, rows);
    }
}

/// Adds the products of all depths to a tile of sums, of which `before` is what is left. Without, there are no sums yet.
#[inline(always)]
fn add<V: Vector, const R: usize>(
    factors: &[[f32; R]],
    queries: &[Queries],
    before: Option<&Queries>,
    sums: &mut [Queries; R],
) {
    /// Vectors of queries at once.
    const AT_ONCE: usize = 2;
    for first in (0..TOGETHER).step_by(AT_ONCE * V::WIDTH) {
        let at: [(usize, usize); AT_ONCE] = std::array::from_fn(|vector| {
            let query = first + vector * V::WIDTH;
            (query / LANES, query % LANES)
        });
        let mut acc = [[V::splat(0.0); AT_ONCE]; R];
        for (factors, queries) in factors.iter().zip(queries) {
            let vectors = at.map(|(lane, part)| V::load(&queries.0[lane], part));
            for r in 0..R {
                for v in 0..AT_ONCE {
                    acc[r][v] = vectors[v].times_plus(factors[r], acc[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..AT_ONCE {
                let (lane, part) = at[v];
                let total = match before {
                    Some(before) => {
                        let sum = V::load(&sums[r].0[lane], part);
                        sum.times_each(V::load(&before.0[lane], part)).add(acc[r][v])
                    }
                    None => acc[r][v],
                };
                total.store(&mut sums[r].0[lane], part);
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of channels")]
fn as_float(count: usize) -> f32 {
    count as f32
}
