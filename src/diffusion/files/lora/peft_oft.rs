//! What PEFT's OFT and BOFT make of a weight: rotations of its inputs, in blocks.
//!
//! OFT (`peft/tuners/oft/layer.py`) stores the upper triangle of each block's skew-symmetric matrix, and the configuration
//! says how a rotation is made of it. BOFT (`peft/tuners/boft/layer.py`) stores whole matrices in stages, between which the
//! inputs are permuted, and a factor for each output. PEFT knows no scale for either; here it goes straight from the weight
//! to the rotated one.

use ndarray::{Array2, ArrayView2, ArrayView3, Axis, s};

use super::peft_config::{OftSettings, PeftConfig};
use super::role::Role;
use super::rotation::{Formula, LARGEST_BLOCK, rotated, skew};
use super::source::{Size, Source};
use crate::domain::ModelPart;

/// OFT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeftOft {
    size: Size,
    blocks: usize,
    block: usize,
    settings: OftSettings,
}

impl PeftOft {
    pub fn fit(
        source: Source<'_>,
        size: Size,
        target: &str,
        part: ModelPart,
        config: &PeftConfig,
    ) -> Result<Self, String> {
        let &[blocks, elements] = source.shape(Role::PeftOft) else {
            return Err(source.misfit(Role::PeftOft, &format!("{target} needs [blocks, elements]")));
        };
        let block = (2..=LARGEST_BLOCK).find(|block| block * (block - 1) / 2 >= elements);
        let block =
            block.filter(|block| block * (block - 1) / 2 == elements && size.row().is_multiple_of(*block));
        let settings = config.oft(part)?;
        // One block may be for all.
        let fits = |block: &usize| blocks.checked_mul(*block) == Some(size.row()) || blocks == 1;
        let block = block.filter(fits).ok_or_else(|| {
            source.misfit(Role::PeftOft, &format!("{target} needs blocks for {} inputs", size.row()))
        })?;
        Ok(Self { size, blocks, block, settings })
    }

    pub fn delta(&self, source: Source<'_>, original: &[f32]) -> Result<Vec<f32>, String> {
        let elements = self.block * (self.block - 1) / 2;
        let triangles = source.matrix(Role::PeftOft, self.blocks, elements)?;
        let rotation = |triangle: usize| {
            let mut upper = Array2::<f64>::zeros((self.block, self.block));
            let places =
                (0..self.block).flat_map(|row| (row + 1..self.block).map(move |column| [row, column]));
            for (place, value) in places.zip(triangles.row(triangle)) {
                upper[place] = f64::from(*value);
            }
            let mut q = skew(&upper.view());
            if let Some(limit) = self.settings.limit {
                #[expect(clippy::cast_precision_loss, reason = "a number of blocks")]
                let limit = limit / (self.blocks as f64).sqrt();
                let norm = q.iter().map(|value| value * value).sum::<f64>().sqrt();
                if norm > limit {
                    q *= limit / norm;
                }
            }
            q
        };
        let mut columns = columns(self.size, original)?;
        for (index, start) in (0..self.size.row()).step_by(self.block).enumerate() {
            let q = rotation(index % self.blocks);
            let mut rows = columns.slice_mut(s![start..start + self.block, ..]);
            let turned = rotated(&q, &rows.view(), self.settings.formula);
            rows.assign(&turned.ok_or("its tensor oft_R is no rotation")?);
        }
        Ok(difference(&columns, original))
    }
}

/// BOFT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeftBoft {
    size: Size,
    stages: usize,
    blocks: usize,
    block: usize,
}

impl PeftBoft {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        source.require(Role::PeftBoft, "boft_R", Role::PeftBoftScale)?;
        let role = Role::PeftBoft;
        let (stages, blocks, block) = match *source.shape(role) {
            [stages, blocks, block, other] if block == other => (stages, blocks, block),
            _ => (0, 0, 0),
        };
        let fits = (1..=32).contains(&stages)
            && (1..=LARGEST_BLOCK).contains(&block)
            && blocks.checked_mul(block) == Some(size.row())
            // Each stage halves the number of blocks that the inputs are shuffled within.
            && (stages == 1 || (block.is_multiple_of(2) && blocks % (1 << (stages - 1)) == 0));
        if !fits {
            return Err(source.misfit(role, &format!("{target} needs blocks for {} inputs", size.row())));
        }
        if source.has(Role::PeftBoftScale) {
            source.expect_count(Role::PeftBoftScale, size.outputs, target)?;
        }
        Ok(Self { size, stages, blocks, block })
    }

    pub fn delta(&self, source: Source<'_>, original: &[f32]) -> Result<Vec<f32>, String> {
        let &Self { size, stages, blocks, block } = self;
        let values = source.values(Role::PeftBoft)?;
        let matrices = ArrayView3::from_shape((stages * blocks, block, block), &values);
        let matrices = matrices.map_err(|_| "its tensor boft_R is cut off".to_owned())?;
        let mut columns = columns(size, original)?;
        for stage in 0..stages {
            let order = self.order(stage);
            // The transposed permutation, the blocks, the permutation.
            let mut permuted = Array2::zeros(columns.dim());
            for (row, place) in columns.rows().into_iter().zip(&order) {
                permuted.row_mut(*place).assign(&row);
            }
            for (index, start) in (0..size.row()).step_by(block).enumerate() {
                let matrix = matrices.index_axis(Axis(0), stage * blocks + index).mapv(f64::from);
                let q = skew(&matrix.view()) * 0.5;
                let mut rows = permuted.slice_mut(s![start..start + block, ..]);
                let turned = rotated(&q, &rows.view(), Formula::Minus);
                rows.assign(&turned.ok_or("its tensor boft_R is no rotation")?);
            }
            columns = permuted.select(Axis(0), &order);
        }
        if source.has(Role::PeftBoftScale) {
            for (mut column, factor) in
                columns.columns_mut().into_iter().zip(source.values(Role::PeftBoftScale)?)
            {
                column *= f64::from(factor);
            }
        }
        Ok(difference(&columns, original))
    }

    /// The permutation of a stage: where each input comes from.
    fn order(&self, stage: usize) -> Vec<usize> {
        let inputs = self.size.row();
        if self.stages == 1 {
            return (0..inputs).collect();
        }
        let group = inputs / (self.blocks >> stage).max(1);
        let half = (self.block / 2).max(1);
        let pairs = group / half;
        let evens = pairs.div_ceil(2);
        let place = |position: usize| {
            let (start, inside) = (position / group * group, position % group);
            let (pair, rest) = (inside / half, inside % half);
            // First the even halves of blocks, then the odd ones.
            let from = if pair < evens { 2 * pair } else { 2 * (pair - evens) + 1 };
            start + from * half + rest
        };
        (0..inputs).map(place).collect()
    }
}

/// The weight with its inputs as rows, in double precision.
fn columns(size: Size, original: &[f32]) -> Result<Array2<f64>, String> {
    let rows = ArrayView2::from_shape((size.outputs, size.row()), original);
    let rows = rows.map_err(|_| "the weight has another size".to_owned())?;
    Ok(rows.t().mapv(f64::from).as_standard_layout().into_owned())
}

fn difference(columns: &Array2<f64>, original: &[f32]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "back to the precision of weights")]
    let delta = |(after, before): (&f64, &f32)| (after - f64::from(*before)) as f32;
    columns.t().iter().zip(original).map(delta).collect()
}
