//! Rotations by Cayley's formula: from a skew-symmetric matrix Q to `(I + Q)(I − Q)⁻¹`, applied to columns.
//!
//! In double precision, since an inverse loses digits. The inverse is never made: `(I − Q) X = (I + Q) Y` is solved.

use ndarray::{Array2, ArrayView2, s};

/// The largest block that is solved, in rows. The work grows with its third power; trainers use 4 to 320.
pub const LARGEST_BLOCK: usize = 2560;

/// How a rotation is made of the skew-symmetric Q.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Formula {
    /// `(I + Q)(I − Q)⁻¹`.
    Plus,
    /// `(I − Q)(I + Q)⁻¹`.
    Minus,
    /// The first terms of the series of `Plus`, `I + 2Q + 2Q² + … + Qⁿ`, with which PEFT approximates it.
    Series { terms: usize },
}

/// `matrix − matrixᵀ`.
pub fn skew(matrix: &ArrayView2<'_, f64>) -> Array2<f64> {
    matrix - &matrix.t()
}

/// The columns rotated. None where they cannot be: a rotation that is not finite.
pub fn rotated(q: &Array2<f64>, columns: &ArrayView2<'_, f64>, formula: Formula) -> Option<Array2<f64>> {
    let turned = q.dot(columns);
    match formula {
        Formula::Plus => solve(&Array2::eye(q.nrows()) - q, columns + &turned),
        Formula::Minus => solve(&Array2::eye(q.nrows()) + q, columns - &turned),
        Formula::Series { terms: 0 | 1 } => Some(columns.to_owned()),
        Formula::Series { terms } => {
            let highest = if terms == 2 { 1 } else { (terms - 1).max(3) };
            let (mut sum, mut power) = (columns.to_owned(), turned);
            for exponent in 1..=highest {
                // The last of three and more counts once, the others twice.
                let factor = if exponent == highest && terms > 2 { 1.0 } else { 2.0 };
                sum.scaled_add(factor, &power);
                power = q.dot(&power);
            }
            Some(sum)
        }
    }
}

/// The X of `matrix · X = columns`, by elimination with the largest pivot.
fn solve(mut matrix: Array2<f64>, mut columns: Array2<f64>) -> Option<Array2<f64>> {
    let size = matrix.nrows();
    for pivot in 0..size {
        let largest =
            (pivot..size).max_by(|a, b| matrix[[*a, pivot]].abs().total_cmp(&matrix[[*b, pivot]].abs()))?;
        if matrix[[largest, pivot]].abs() < f64::MIN_POSITIVE || !matrix[[largest, pivot]].is_finite() {
            return None;
        }
        swap_rows(&mut matrix, pivot, largest);
        swap_rows(&mut columns, pivot, largest);
        for row in pivot + 1..size {
            let factor = matrix[[row, pivot]] / matrix[[pivot, pivot]];
            if factor != 0.0 {
                subtract_row(&mut matrix, row, pivot, pivot, factor);
                subtract_row(&mut columns, row, pivot, 0, factor);
            }
        }
    }
    for row in (0..size).rev() {
        for above in row + 1..size {
            let factor = matrix[[row, above]];
            if factor != 0.0 {
                subtract_row(&mut columns, row, above, 0, factor);
            }
        }
        let pivot = matrix[[row, row]];
        columns.row_mut(row).mapv_inplace(|value| value / pivot);
    }
    Some(columns)
}

fn swap_rows(matrix: &mut Array2<f64>, one: usize, other: usize) {
    if one != other {
        let (low, high) = (one.min(other), one.max(other));
        let (mut top, mut bottom) = matrix.view_mut().split_at(ndarray::Axis(0), high);
        ndarray::Zip::from(top.row_mut(low)).and(bottom.row_mut(0)).for_each(std::mem::swap);
    }
}

/// Subtracts `factor` times the row `from` from `row`, beginning at the column `start`.
fn subtract_row(matrix: &mut Array2<f64>, row: usize, from: usize, start: usize, factor: f64) {
    let (low, high) = (row.min(from), row.max(from));
    let (mut top, mut bottom) = matrix.view_mut().split_at(ndarray::Axis(0), high);
    let (mut top, mut bottom) = (top.slice_mut(s![low, start..]), bottom.slice_mut(s![0, start..]));
    match row < from {
        true => top.scaled_add(-factor, &bottom),
        false => bottom.scaled_add(-factor, &top),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_rotation_keeps_lengths_and_the_two_formulas_undo_each_other() {
        let q = skew(&array![[0.0, 0.3, -0.7], [0.1, 0.0, 2.0], [0.5, 0.2, 0.0]].view());
        let columns = array![[1.0, 4.0], [2.0, -5.0], [3.0, 6.0]];
        let turned = rotated(&q, &columns.view(), Formula::Plus).unwrap();
        for (before, after) in columns.columns().into_iter().zip(turned.columns()) {
            assert!((before.dot(&before) - after.dot(&after)).abs() < 1e-12);
        }
        let back = rotated(&q, &turned.view(), Formula::Minus).unwrap();
        assert!((&back - &columns).iter().all(|apart| apart.abs() < 1e-12), "{back}");
    }

    #[test]
    fn a_quarter_turn_is_exact() {
        // Q = [[0, -1], [1, 0]] gives the rotation by twice its arc tangent, 90°.
        let q = array![[0.0, -1.0], [1.0, 0.0]];
        let turned = rotated(&q, &array![[1.0], [0.0]].view(), Formula::Plus).unwrap();
        assert!((turned[[0, 0]]).abs() < 1e-15 && (turned[[1, 0]] - 1.0).abs() < 1e-15, "{turned}");
    }

    #[test]
    fn the_series_approaches_the_formula() {
        let q = array![[0.0, 0.05], [-0.05, 0.0]];
        let columns = array![[1.0], [2.0]];
        let exact = rotated(&q, &columns.view(), Formula::Plus).unwrap();
        let five = rotated(&q, &columns.view(), Formula::Series { terms: 5 }).unwrap();
        assert!((&exact - &five).iter().all(|apart| apart.abs() < 2e-5));
        let one = rotated(&q, &columns.view(), Formula::Series { terms: 1 }).unwrap();
        assert_eq!(one, columns);
    }

    #[test]
    fn what_is_not_finite_is_not_rotated() {
        let q = array![[0.0, f64::NAN], [f64::NAN, 0.0]];
        assert!(rotated(&q, &array![[1.0], [2.0]].view(), Formula::Plus).is_none());
    }
}
