//! What `LoHa` adds to a weight: the elementwise product of two low-rank products.
//!
//! As in LyCORIS (`lycoris/functional/loha.py`) and PEFT: `(w1_a · w1_b) ∘ (w2_a · w2_b)`, each with a core between its
//! two matrices where a convolution is split by Tucker; the matrices' first axis is then the rank.

use ndarray::Array2;

use super::low_rank::tucker;
use super::role::Role;
use super::source::{Size, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hadamard {
    size: Size,
    halves: [Half; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Half {
    a: Role,
    b: Role,
    core: Role,
    a_rank: usize,
    b_rank: usize,
}

const ROLES: [[Role; 3]; 2] =
    [[Role::Hada1A, Role::Hada1B, Role::Hada1T], [Role::Hada2A, Role::Hada2B, Role::Hada2T]];

impl Hadamard {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        let half = |[a, b, core]: [Role; 3]| -> Result<Half, String> {
            source.require(a, "first matrix", b)?;
            source.require(b, "second matrix", a)?;
            let rank = |role: Role| source.shape(role).first().copied().unwrap_or(0).max(1);
            let b_rank = rank(b);
            if source.has(core) {
                let a_rank = rank(a);
                source.expect(a, &[a_rank, size.outputs], target)?;
                source.expect(b, &[b_rank, size.inputs], target)?;
                source.expect(core, &[a_rank, b_rank, size.height, size.width], target)?;
                return Ok(Half { a, b, core, a_rank, b_rank });
            }
            source.expect(a, &[size.outputs, b_rank], target)?;
            source.expect_count(b, b_rank.saturating_mul(size.row()), target)?;
            Ok(Half { a, b, core, a_rank: b_rank, b_rank })
        };
        Ok(Self { size, halves: [half(ROLES[0])?, half(ROLES[1])?] })
    }

    pub fn rank(&self) -> usize {
        self.halves[0].b_rank
    }

    pub fn delta(&self, source: Source<'_>) -> Result<Vec<f32>, String> {
        let product = |half: Half| -> Result<Vec<f32>, String> {
            let Half { a, b, core, a_rank, b_rank } = half;
            if !source.has(core) {
                let a = source.matrix(a, self.size.outputs, a_rank)?;
                let b: Array2<f32> = source.matrix(b, b_rank, self.size.row())?;
                return Ok(a.dot(&b).into_raw_vec_and_offset().0);
            }
            let a = source.matrix(a, a_rank, self.size.outputs)?;
            let b = source.matrix(b, b_rank, self.size.inputs)?;
            let core = source.matrix(core, a_rank, b_rank * self.size.kernel())?;
            tucker(self.size, &a.t(), &core, &b.view())
        };
        let mut first = product(self.halves[0])?;
        first.iter_mut().zip(product(self.halves[1])?).for_each(|(first, second)| *first *= second);
        Ok(first)
    }
}
