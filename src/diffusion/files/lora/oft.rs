//! What LyCORIS' and kohya's OFT make of a weight: rotations of its outputs, in blocks.
//!
//! Diagonal OFT has one rotation for each block of outputs (`oft_blocks` of three axes; before LyCORIS 2.1 the rotations
//! themselves, `oft_diag`). BOFT has several stages, between which the outputs are shuffled as by a butterfly (four axes).
//! As in `lycoris/modules/diag_oft.py` and `lycoris/functional/boft.py`: alpha, times the number of outputs, limits the norm
//! of what the rotations are made of; `rescale` multiplies each output; a scale goes from the identity to the rotation, in
//! BOFT for each stage.

use ndarray::{Array2, ArrayView2, s};

use super::role::Role;
use super::rotation::{Formula, LARGEST_BLOCK, rotated, skew};
use super::source::{Size, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oft {
    size: Size,
    role: Role,
    /// 1 for diagonal OFT.
    stages: usize,
    is_butterfly: bool,
    /// Rows of a block.
    block: usize,
}

impl Oft {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        let role = if source.has(Role::OftBlocks) { Role::OftBlocks } else { Role::OftDiag };
        source.require(role, "oft_blocks", Role::Rescale)?;
        let (stages, blocks, block, is_butterfly) = match *source.shape(role) {
            [blocks, block, other] if block == other => (1, blocks, block, false),
            [stages, blocks, block, other] if block == other && role == Role::OftBlocks => {
                (stages, blocks, block, true)
            }
            _ => (0, 0, 0, false),
        };
        let fits_butterfly = || {
            // The last stage shuffles over this many outputs.
            let span =
                u32::try_from(stages).ok().and_then(|stages| block.checked_shl(stages.saturating_sub(1)));
            stages <= 32
                && block.is_multiple_of(2)
                && span.is_some_and(|span| span > 0 && size.outputs.is_multiple_of(span))
        };
        let fits = stages > 0 && block > 0 && blocks.checked_mul(block) == Some(size.outputs);
        if !fits || (is_butterfly && !fits_butterfly()) {
            return Err(source.misfit(role, &format!("{target} needs blocks for {} outputs", size.outputs)));
        }
        if block > LARGEST_BLOCK {
            return Err(source.misfit(role, &format!("{target} needs blocks of at most {LARGEST_BLOCK}")));
        }
        if source.has(Role::Rescale) {
            source.expect_count(Role::Rescale, size.outputs, target)?;
        }
        Ok(Self { size, role, stages, is_butterfly, block })
    }

    /// What the change adds to the weight at this scale.
    pub fn delta(&self, source: Source<'_>, original: &[f32], scale: f32) -> Result<Vec<f32>, String> {
        let &Self { size, block, .. } = self;
        let name = source.quoted(self.role);
        let mut weight = Array2::from_shape_vec(
            (size.outputs, size.row()),
            original.iter().map(|value| f64::from(*value)).collect(),
        )
        .map_err(|_| "the weight has another size".to_owned())?;
        let blocks = Blocks::read(source, self)?;
        let scale = f64::from(scale);
        for stage in 0..self.stages {
            let order = self.order(stage);
            let shuffled = weight.select(ndarray::Axis(0), &order);
            let first = stage * size.outputs / block;
            for (index, start) in (0..size.outputs).step_by(block).enumerate() {
                let rows = shuffled.slice(s![start..start + block, ..]);
                let turned = self.turn(&blocks.matrix(first + index), &rows);
                let turned = turned.ok_or_else(|| format!("its tensor {name} is no rotation"))?;
                for (row, place) in order[start..start + block].iter().enumerate() {
                    let mixed = &turned.row(row) * scale + &rows.row(row) * (1.0 - scale);
                    weight.row_mut(*place).assign(&mixed);
                }
            }
        }
        if source.has(Role::Rescale) {
            for (mut row, factor) in weight.rows_mut().into_iter().zip(source.values(Role::Rescale)?) {
                row *= f64::from(factor);
            }
        }
        #[expect(clippy::cast_possible_truncation, reason = "back to the precision of weights")]
        let delta = |(after, before): (&f64, &f32)| (after - f64::from(*before)) as f32;
        Ok(weight.iter().zip(original).map(delta).collect())
    }

    fn turn(&self, matrix: &Array2<f64>, rows: &ArrayView2<'_, f64>) -> Option<Array2<f64>> {
        match (self.role, self.is_butterfly) {
            (Role::OftDiag, _) => Some(matrix.t().dot(rows)),
            (_, true) => rotated(matrix, rows, Formula::Plus),
            // LyCORIS multiplies by the transposed rotation here.
            (_, false) => rotated(matrix, rows, Formula::Minus),
        }
    }

    /// The outputs in the order in which a stage takes them.
    fn order(&self, stage: usize) -> Vec<usize> {
        if !self.is_butterfly {
            return (0..self.size.outputs).collect();
        }
        let half = (1 << stage) * self.block / 2;
        let place = |position: usize| {
            let (group, inside) = (position / (2 * half), position % (2 * half));
            group * 2 * half + inside % 2 * half + inside / 2
        };
        (0..self.size.outputs).map(place).collect()
    }
}

/// The blocks of all stages as the file has them. Their matrices are made one at a time.
struct Blocks {
    values: Vec<f32>,
    block: usize,
    /// Of the skew-symmetric matrices, so that they stay within the limit. None for rotations themselves.
    factor: Option<f64>,
}

impl Blocks {
    fn read(source: Source<'_>, oft: &Oft) -> Result<Self, String> {
        let values = source.values(oft.role)?;
        let area = oft.block * oft.block;
        if values.len() != oft.stages * oft.size.outputs / oft.block * area {
            return Err(format!("its tensor {} is cut off", source.quoted(oft.role)));
        }
        let mut blocks = Self { values, block: oft.block, factor: None };
        if oft.role == Role::OftBlocks {
            blocks.factor = Some(1.0);
            #[expect(clippy::cast_precision_loss, reason = "a number of channels")]
            let limit = f64::from(source.number(Role::Alpha)?.unwrap_or(0.0)) * oft.size.outputs as f64;
            if limit > 0.0 {
                let count = blocks.values.len() / area;
                let squares = (0..count).map(|index| blocks.matrix(index).iter().map(|q| q * q).sum::<f64>());
                let norm = squares.sum::<f64>().sqrt() + 1e-8;
                blocks.factor = Some(if norm > limit { limit / norm } else { 1.0 });
            }
        }
        Ok(blocks)
    }

    /// Skew-symmetric and within the limit, or the rotation itself.
    fn matrix(&self, index: usize) -> Array2<f64> {
        let area = self.block * self.block;
        let values = &self.values[index * area..(index + 1) * area];
        let matrix = Array2::from_shape_fn((self.block, self.block), |(row, column)| {
            f64::from(values[row * self.block + column])
        });
        match self.factor {
            Some(factor) => skew(&matrix.view()) * factor,
            None => matrix,
        }
    }
}
