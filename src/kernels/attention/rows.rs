//! The way of queries and results between the rows of tensors and the lanes of vectors.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use super::block::{Head, LANES_OF_QUERIES, Queries};
use crate::kernels::vector::{LANES, Vector};

/// Queries and channels that are transposed at once.
const SQUARE: usize = 8;

/// Transposes queries, of which `rows` has the rows, and scales them.
#[inline(always)]
pub fn load_queries<V: Vector>(head: &Head, rows: &[f32], scale: f32, queries: &mut [Queries]) {
    let channels = queries.len();
    for (square, rows) in rows.chunks(SQUARE * head.row).enumerate() {
        let at = square * SQUARE;
        for first in (0..channels).step_by(SQUARE) {
            let end = channels.min(first + SQUARE);
            let mut values = [[0.0; SQUARE]; SQUARE];
            for (values, row) in values.iter_mut().zip(head.of_rows(rows, channels)) {
                match row[first..end].first_chunk() {
                    Some(row) => *values = *row,
                    None => values[..end - first].copy_from_slice(&row[first..end]),
                }
            }
            V::transpose(&mut values);
            for (queries, values) in queries[first..end].iter_mut().zip(&values) {
                queries.0.as_flattened_mut()[at..at + SQUARE].copy_from_slice(values);
            }
        }
    }
    multiply::<V>(queries, &Queries([[scale; LANES]; LANES_OF_QUERIES]));
}

/// Multiplies each row by `factors`. The compiler's own vectors would go across the rows.
#[inline(always)]
fn multiply<V: Vector>(rows: &mut [Queries], factors: &Queries) {
    for row in rows {
        for (lane, factors) in row.0.iter_mut().zip(&factors.0) {
            for part in (0..LANES).step_by(V::WIDTH) {
                V::load(lane, part).times_each(V::load(factors, part)).store(lane, part);
            }
        }
    }
}

/// Divides sums of weighted values by the sums of the weights, and transposes them into rows.
#[inline(always)]
pub fn store_results<V: Vector>(head: &Head, sums: &mut [Queries], weights: &Queries, rows: &mut [f32]) {
    let channels = sums.len();
    multiply::<V>(sums, &Queries(weights.0.map(|lane| lane.map(f32::recip))));
    for (square, rows) in rows.chunks_mut(SQUARE * head.row).enumerate() {
        let at = square * SQUARE;
        for first in (0..channels).step_by(SQUARE) {
            let end = channels.min(first + SQUARE);
            let mut values = [[0.0; SQUARE]; SQUARE];
            for (values, sums) in values.iter_mut().zip(&sums[first..end]) {
                values.copy_from_slice(&sums.0.as_flattened()[at..at + SQUARE]);
            }
            V::transpose(&mut values);
            for (row, values) in rows.chunks_exact_mut(head.row).zip(&values) {
                let row = &mut row[head.first + first..head.first + end];
                match row.first_chunk_mut() {
                    Some(row) => *row = *values,
                    None => row.copy_from_slice(&values[..end - first]),
                }
            }
        }
    }
}
