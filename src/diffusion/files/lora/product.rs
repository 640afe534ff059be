//! What a LoRA adds to a weight: the product of its low-rank matrices.
//!
//! Shapes are those of the weight that the product is added to: `[out, in]`, or `[out, in, height, width]` of a convolution.

use ndarray::{Array4, ArrayView2, ArrayView4};

/// The shapes of one module's matrices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes {
    pub down: Vec<usize>,
    pub up: Vec<usize>,
    pub mid: Option<Vec<usize>>,
}

/// The sizes of matrices that fit together and fit the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    outputs: usize,
    inputs: usize,
    /// Of the kernel, 1 for a linear layer.
    height: usize,
    width: usize,
    /// The rank of `up`. Without a middle matrix it equals that of `down`.
    up_rank: usize,
    down_rank: usize,
    has_mid: bool,
}

/// A matrix that does not fit, and the shape that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    pub role: super::Role,
    pub found: Vec<usize>,
    pub wanted: Vec<usize>,
}

impl Fit {
    /// Checks that the product has the weight's shape, which has 2 or 4 sizes.
    pub fn new(weight: &[usize], shapes: &Shapes) -> Result<Self, Misfit> {
        use super::Role;
        let kernel = weight.get(2..).unwrap_or_default();
        let (outputs, inputs) = (weight.first().copied().unwrap_or(0), weight.get(1).copied().unwrap_or(0));
        let (height, width) = (kernel.first().copied().unwrap_or(1), kernel.get(1).copied().unwrap_or(1));
        let down_rank = shapes.down.first().copied().unwrap_or(0).max(1);
        let up_rank = shapes.mid.as_ref().and_then(|mid| mid.first()).copied().unwrap_or(down_rank).max(1);
        // With a middle matrix, only that has the kernel; the other two are 1×1.
        let (down_height, down_width) = if shapes.mid.is_some() { (1, 1) } else { (height, width) };
        let wanted = [
            (Role::Down, Some(&shapes.down), vec![down_rank, inputs, down_height, down_width]),
            (Role::Up, Some(&shapes.up), vec![outputs, up_rank, 1, 1]),
            (Role::Mid, shapes.mid.as_ref(), vec![up_rank, down_rank, height, width]),
        ];
        for (role, found, wanted) in wanted {
            if let Some(found) = found.filter(|found| !is_same(found, &wanted)) {
                // Linear layers are shown with two sizes.
                let wanted = if wanted[2..] == [1, 1] { wanted[..2].to_vec() } else { wanted };
                return Err(Misfit { role, found: found.clone(), wanted });
            }
        }
        Ok(Self { outputs, inputs, height, width, up_rank, down_rank, has_mid: shapes.mid.is_some() })
    }

    pub fn rank(&self) -> usize {
        self.down_rank
    }

    /// The product in the order of the weight. None where a matrix does not have as many values as its shape says.
    pub fn product(&self, down: &[f32], up: &[f32], mid: Option<&[f32]>) -> Option<Vec<f32>> {
        let &Self { outputs, inputs, height, width, up_rank, down_rank, has_mid } = self;
        let up = ArrayView2::from_shape((outputs, up_rank), up).ok()?;
        if !has_mid {
            let down = ArrayView2::from_shape((down_rank, inputs * height * width), down).ok()?;
            return Some(up.dot(&down).into_raw_vec_and_offset().0);
        }
        let down = ArrayView2::from_shape((down_rank, inputs), down).ok()?;
        let mid = ArrayView4::from_shape((up_rank, down_rank, height, width), mid?).ok()?;
        let mut whole = Array4::zeros((outputs, inputs, height, width));
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            let point = up.dot(&mid.slice(ndarray::s![.., .., y, x]).dot(&down));
            whole.slice_mut(ndarray::s![.., .., y, x]).assign(&point);
        }
        Some(whole.into_raw_vec_and_offset().0)
    }
}

/// Whether a shape equals `wanted`, apart from trailing ones: files have linear layers as 1×1 convolutions and the
/// other way round.
fn is_same(found: &[usize], wanted: &[usize]) -> bool {
    let sizes = found.iter().copied().chain(std::iter::repeat(1)).take(wanted.len());
    (2..=wanted.len()).contains(&found.len()) && sizes.eq(wanted.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    fn fit(weight: &[usize], down: &[usize], up: &[usize], mid: Option<&[usize]>) -> Result<Fit, Misfit> {
        let shapes = Shapes { down: down.to_vec(), up: up.to_vec(), mid: mid.map(<[usize]>::to_vec) };
        Fit::new(weight, &shapes)
    }

    #[test]
    fn a_linear_product_is_up_times_down() {
        for down in [vec![2, 3], vec![2, 3, 1, 1]] {
            let fit = fit(&[2, 3], &down, &[2, 2], None).unwrap();
            let product = fit.product(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 0.0, 1.0, -1.0], None).unwrap();
            assert_eq!(product, [1.0, 2.0, 3.0, -3.0, -3.0, -3.0]);
        }
        assert!(fit(&[2, 3, 1, 1], &[2, 3], &[2, 2], None).is_ok(), "a point of a convolution");
    }

    #[test]
    fn a_convolution_split_into_three_is_summed_over_both_ranks() {
        let fit = fit(&[2, 2, 1, 2], &[2, 2, 1, 1], &[2, 1, 1, 1], Some(&[1, 2, 1, 2])).unwrap();
        let (down, up, mid) = ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0], [1.0, 10.0, 2.0, 20.0]);
        let mut expected = Vec::new();
        for (o, i, x) in (0..2).flat_map(|o| (0..2).flat_map(move |i| (0..2).map(move |x| (o, i, x)))) {
            expected.push(up[o] * (mid[x] * down[i] + mid[2 + x] * down[2 + i]));
        }
        assert_eq!(fit.product(&down, &up, Some(&mid)).unwrap(), expected);
    }

    #[test]
    fn a_matrix_that_does_not_fit_is_reported_with_the_shape_that_would() {
        let misfit = |role, found: &[usize], wanted: &[usize]| Misfit {
            role,
            found: found.to_vec(),
            wanted: wanted.to_vec(),
        };
        for (found, expected) in [
            (fit(&[4, 8], &[2, 9], &[4, 2], None), misfit(Role::Down, &[2, 9], &[2, 8])),
            (fit(&[4, 8], &[2, 8], &[5, 2], None), misfit(Role::Up, &[5, 2], &[4, 2])),
            (fit(&[4, 8], &[2, 8], &[4, 3], None), misfit(Role::Up, &[4, 3], &[4, 2])),
            (fit(&[4, 8, 3, 3], &[2, 8], &[4, 2], None), misfit(Role::Down, &[2, 8], &[2, 8, 3, 3])),
            (fit(&[4, 8], &[], &[4, 2], None), misfit(Role::Down, &[], &[1, 8])),
            (fit(&[4, 8], &[0, 8], &[4, 0], None), misfit(Role::Down, &[0, 8], &[1, 8])),
            (fit(&[4, 8], &[2, 4, 2], &[4, 2], None), misfit(Role::Down, &[2, 4, 2], &[2, 8])),
        ] {
            assert_eq!(found, Err(expected));
        }
        assert!(fit(&[4, 8], &[2, 8], &[4, 2], None).unwrap().product(&[0.0; 15], &[0.0; 8], None).is_none());
    }
}
