//! Adams-Bashforth on an even grid, for PNDM and IPNDM (K-LMS has its own, for uneven grids): a mean of the last answers
//! that extrapolates to the step ahead.

use std::collections::VecDeque;

use ndarray::{Array4, Zip};

/// The longest history that counts.
pub(super) const ORDER: usize = 4;

/// Of order 1 to 4, as many as there are answers, newest first: Liu et al. 2022 (arXiv 2202.09778), equation 12.
/// Sums and divisions are in the order of the reference.
pub(super) fn adams_bashforth(answers: &VecDeque<Array4<f32>>) -> Array4<f32> {
    let m = answers;
    match m.len() {
        1 => m[0].clone(),
        2 => Zip::from(&m[0]).and(&m[1]).map_collect(|&a, &b| (3.0 * a - b) / 2.0),
        3 => Zip::from(&m[0])
            .and(&m[1])
            .and(&m[2])
            .map_collect(|&a, &b, &c| (23.0 * a - 16.0 * b + 5.0 * c) / 12.0),
        _ => Zip::from(&m[0])
            .and(&m[1])
            .and(&m[2])
            .and(&m[3])
            .map_collect(|&a, &b, &c, &d| (1.0 / 24.0) * (55.0 * a - 59.0 * b + 37.0 * c - 9.0 * d)),
    }
}
