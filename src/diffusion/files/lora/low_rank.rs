//! What LoRA and LoCon add to a weight: the product of low-rank matrices.
//!
//! Shapes are those of the weight that the product is added to: `[out, in]`, or `[out, in, height, width]` of a convolution.

use ndarray::{Array2, Array4, ArrayView2, ArrayView4};

use super::role::Role;
use super::source::{Size, Source};

/// The sizes of matrices that fit together and fit the weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowRank {
    size: Size,
    /// The rank of `up`. Without a middle matrix it equals that of `down`.
    up_rank: usize,
    down_rank: usize,
    roles: Roles,
}

/// The roles of the three matrices. GLoRA has such a product too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    pub down: Role,
    pub up: Role,
    pub mid: Role,
}

pub const LORA: Roles = Roles { down: Role::Down, up: Role::Up, mid: Role::Mid };
pub const GLORA: Roles = Roles { down: Role::GloraB2, up: Role::GloraB1, mid: Role::GloraBm };

impl LowRank {
    /// Checks that none of the matrices is missing and that the product has the weight's shape.
    pub fn fit(source: Source<'_>, size: Size, target: &str, roles: Roles) -> Result<Self, String> {
        let Roles { down, up, mid } = roles;
        source.require(up, "up matrix", down)?;
        source.require(down, "down matrix", up)?;
        let first = |role: Role| source.shape(role).first().copied();
        let down_rank = first(down).unwrap_or(0).max(1);
        let up_rank = first(mid).unwrap_or(down_rank).max(1);
        let Size { outputs, inputs, height, width } = size;
        // With a middle matrix, only that has the kernel; the other two are 1×1.
        let (down_height, down_width) = if source.has(mid) { (1, 1) } else { (height, width) };
        source.expect(down, &[down_rank, inputs, down_height, down_width], target)?;
        source.expect(up, &[outputs, up_rank, 1, 1], target)?;
        if source.has(mid) {
            source.expect(mid, &[up_rank, down_rank, height, width], target)?;
        }
        Ok(Self { size, up_rank, down_rank, roles })
    }

    pub fn rank(&self) -> usize {
        self.down_rank
    }

    /// The product in the order of the weight.
    pub fn delta(&self, source: Source<'_>) -> Result<Vec<f32>, String> {
        let &Self { size, up_rank, down_rank, roles } = self;
        let up = source.matrix(roles.up, size.outputs, up_rank)?;
        if !source.has(roles.mid) {
            let down = source.matrix(roles.down, down_rank, size.row())?;
            return Ok(up.dot(&down).into_raw_vec_and_offset().0);
        }
        let down = source.matrix(roles.down, down_rank, size.inputs)?;
        let core = source.matrix(roles.mid, up_rank, down_rank * size.kernel())?;
        tucker(size, &up.view(), &core, &down.view())
    }
}

/// A weight of `size` from its core `[up rank, down rank, height, width]` and the matrices on its two sides, `[out, up
/// rank]` and `[down rank, in]`.
pub fn tucker(
    size: Size,
    up: &ArrayView2<'_, f32>,
    core: &Array2<f32>,
    down: &ArrayView2<'_, f32>,
) -> Result<Vec<f32>, String> {
    let Size { outputs, inputs, height, width } = size;
    let shape = (up.ncols(), down.nrows(), height, width);
    let core = core.as_slice().and_then(|core| ArrayView4::from_shape(shape, core).ok());
    let core = core.ok_or("its core does not fit its matrices")?;
    let mut whole = Array4::zeros((outputs, inputs, height, width));
    for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
        let point = up.dot(&core.slice(ndarray::s![.., .., y, x]).dot(down));
        whole.slice_mut(ndarray::s![.., .., y, x]).assign(&point);
    }
    Ok(whole.into_raw_vec_and_offset().0)
}

/// PEFT's LoRA of a table of embeddings `[words, width]`: the transposed product of `[width, rank]` and `[rank, words]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Embedding {
    words: usize,
    width: usize,
    pub rank: usize,
}

impl Embedding {
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        source.require(Role::EmbeddingUp, "lora_embedding_B", Role::EmbeddingDown)?;
        source.require(Role::EmbeddingDown, "lora_embedding_A", Role::EmbeddingUp)?;
        let rank = source.shape(Role::EmbeddingDown).first().copied().unwrap_or(0).max(1);
        let (words, width) = (size.outputs, size.row());
        source.expect(Role::EmbeddingDown, &[rank, words], target)?;
        source.expect(Role::EmbeddingUp, &[width, rank], target)?;
        Ok(Self { words, width, rank })
    }

    pub fn delta(&self, source: Source<'_>) -> Result<Vec<f32>, String> {
        let down = source.matrix(Role::EmbeddingDown, self.rank, self.words)?;
        let up = source.matrix(Role::EmbeddingUp, self.width, self.rank)?;
        // In the order of the table, which `dot` of two transposed views need not have.
        let product = down.t().dot(&up.t());
        Ok(product.iter().copied().collect())
    }
}
