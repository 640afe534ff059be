//! What `LoKr` adds to a weight: the Kronecker product of a small matrix and a larger one, each whole or of low rank.
//!
//! As in LyCORIS (`lycoris/functional/lokr.py`) and PEFT. The larger one has a convolution's kernel, and may be split by
//! Tucker.

use ndarray::Array2;

use super::low_rank::tucker;
use super::role::Role;
use super::source::{Size, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kronecker {
    size: Size,
    /// Of the first matrix.
    first: Size,
    /// Of the second one, with the kernel.
    second: Size,
    first_rank: Option<usize>,
    second_rank: Option<Ranks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ranks {
    Product(usize),
    /// Of the two sides of a core.
    Core(usize, usize),
}

impl Kronecker {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        let at = |role: Role, axis: usize| source.shape(role).get(axis).copied().unwrap_or(0).max(1);
        let (first_rank, first) = if source.has(Role::Kron1) {
            (None, (at(Role::Kron1, 0), at(Role::Kron1, 1)))
        } else {
            source.require(Role::Kron1A, "lokr_w1", Role::Kron1B)?;
            source.require(Role::Kron1B, "lokr_w1_b", Role::Kron1A)?;
            (Some(at(Role::Kron1B, 0)), (at(Role::Kron1A, 0), at(Role::Kron1B, 1)))
        };
        let first = Size { outputs: first.0, inputs: first.1, height: 1, width: 1 };
        let lead = if first_rank.is_some() { Role::Kron1A } else { Role::Kron1 };
        if !size.outputs.is_multiple_of(first.outputs) || !size.inputs.is_multiple_of(first.inputs) {
            let (outputs, inputs) = (size.outputs, size.inputs);
            return Err(source.misfit(lead, &format!("{target} needs divisors of [{outputs}, {inputs}]")));
        }
        let second =
            Size { outputs: size.outputs / first.outputs, inputs: size.inputs / first.inputs, ..size };
        match first_rank {
            None => source.expect(Role::Kron1, &[first.outputs, first.inputs], target)?,
            Some(rank) => {
                source.expect(Role::Kron1A, &[first.outputs, rank], target)?;
                source.expect(Role::Kron1B, &[rank, first.inputs], target)?;
            }
        }
        let Size { outputs, inputs, height, width } = second;
        let second_rank = if source.has(Role::Kron2) {
            source.expect(Role::Kron2, &[outputs, inputs, height, width], target)?;
            None
        } else {
            source.require(Role::Kron2A, "lokr_w2", lead)?;
            source.require(Role::Kron2B, "lokr_w2_b", Role::Kron2A)?;
            let rank = at(Role::Kron2B, 0);
            if source.has(Role::Kron2T) {
                let out_rank = at(Role::Kron2A, 0);
                source.expect(Role::Kron2A, &[out_rank, outputs], target)?;
                source.expect(Role::Kron2B, &[rank, inputs], target)?;
                source.expect(Role::Kron2T, &[out_rank, rank, height, width], target)?;
                Some(Ranks::Core(out_rank, rank))
            } else {
                source.expect(Role::Kron2A, &[outputs, rank], target)?;
                source.expect_count(Role::Kron2B, rank * second.row(), target)?;
                Some(Ranks::Product(rank))
            }
        };
        Ok(Self { size, first, second, first_rank, second_rank })
    }

    /// The rank that alpha is divided by. None where both matrices are whole: alpha means nothing then.
    pub fn rank(&self) -> Option<usize> {
        match self.second_rank {
            Some(Ranks::Product(rank) | Ranks::Core(_, rank)) => Some(rank),
            None => self.first_rank,
        }
    }

    pub fn delta(&self, source: Source<'_>) -> Result<Vec<f32>, String> {
        let &Self { size, first, second, .. } = self;
        let small: Array2<f32> = match self.first_rank {
            None => source.matrix(Role::Kron1, first.outputs, first.inputs)?,
            Some(rank) => {
                let a = source.matrix(Role::Kron1A, first.outputs, rank)?;
                a.dot(&source.matrix(Role::Kron1B, rank, first.inputs)?)
            }
        };
        let large: Vec<f32> = match self.second_rank {
            None => source.values(Role::Kron2)?,
            Some(Ranks::Product(rank)) => {
                let a = source.matrix(Role::Kron2A, second.outputs, rank)?;
                let b = source.matrix(Role::Kron2B, rank, second.row())?;
                a.dot(&b).into_raw_vec_and_offset().0
            }
            Some(Ranks::Core(out_rank, rank)) => {
                let a = source.matrix(Role::Kron2A, out_rank, second.outputs)?;
                let b = source.matrix(Role::Kron2B, rank, second.inputs)?;
                let core = source.matrix(Role::Kron2T, out_rank, rank * second.kernel())?;
                tucker(second, &a.t(), &core, &b.view())?
            }
        };
        let row = second.row();
        if large.len() != second.outputs * row {
            return Err("its lokr_w2 is cut off".to_owned());
        }
        let mut whole = Vec::with_capacity(size.outputs * size.row());
        for small in small.outer_iter() {
            for large in large.chunks_exact(row.max(1)) {
                for factor in small {
                    whole.extend(large.iter().map(|value| factor * value));
                }
            }
        }
        Ok(whole)
    }
}
