//! What `GLoRA` adds to a weight: a product as LoRA's, and the weight times another one.
//!
//! LyCORIS adds `W·a1·a2 + b1·b2`, where `a1` and `b1` are the tall matrices. Before version 2 it was `W·a2·a1 + b2·b1`
//! with the tall ones the other way round. A kernel's points are multiplied one by one.

use ndarray::{Array2, ArrayView2, s};

use super::low_rank::{self, LowRank, Roles};
use super::role::Role;
use super::source::{Size, Source};

const OLD: Roles = Roles { down: Role::GloraB1, up: Role::GloraB2, mid: Role::GloraBm };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glora {
    size: Size,
    tall: Role,
    wide: Role,
    inner: usize,
    added: LowRank,
}

impl Glora {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        let fit = |tall: Role, wide: Role, roles: Roles| -> Result<Self, String> {
            source.require(tall, "first matrix", wide)?;
            source.require(wide, "second matrix", tall)?;
            let inner = source.shape(wide).first().copied().unwrap_or(0).max(1);
            source.expect(tall, &[size.inputs, inner, 1, 1], target)?;
            source.expect(wide, &[inner, size.inputs, 1, 1], target)?;
            let added = LowRank::fit(source, size, target, roles)?;
            Ok(Self { size, tall, wide, inner, added })
        };
        let new = fit(Role::GloraA1, Role::GloraA2, low_rank::GLORA);
        // The sentence about a file that fits neither is about today's shapes.
        new.or_else(|reason| fit(Role::GloraA2, Role::GloraA1, OLD).map_err(|_| reason))
    }

    pub fn rank(&self) -> usize {
        self.inner
    }

    pub fn delta(&self, source: Source<'_>, original: &[f32]) -> Result<Vec<f32>, String> {
        let size = self.size;
        let tall = source.matrix(self.tall, size.inputs, self.inner)?;
        let wide = source.matrix(self.wide, self.inner, size.inputs)?;
        let mut delta = self.added.delta(source)?;
        let (kernel, row) = (size.kernel(), size.row());
        let weight = ArrayView2::from_shape((size.outputs, row), original);
        let weight = weight.map_err(|_| "the weight has another size".to_owned())?;
        let delta_rows = ndarray::ArrayViewMut2::from_shape((size.outputs, row), &mut delta);
        let mut delta_rows = delta_rows.map_err(|_| "its matrices are cut off".to_owned())?;
        for point in 0..kernel {
            let inputs = s![.., point..;kernel];
            let product: Array2<f32> = weight.slice(inputs).dot(&tall).dot(&wide);
            let mut part = delta_rows.slice_mut(inputs);
            part += &product;
        }
        Ok(delta)
    }
}
