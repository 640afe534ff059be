//! Which of ONNX Runtime's attention kernels a session may use on a card.
//!
//! The provider takes the first kernel of its own order that its flags allow and that accepts the shape. It does not
//! fall back where that kernel then fails. So the loader names a kernel, tries it once and names another if it must.

use std::env;
use std::fmt;

use ort::ep::cuda::AttentionBackend;

/// A choice of kernels. Each also allows the slower ones, for shapes that the fast one refuses beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// cuDNN's fused attention: the fastest from compute capability 9.0 on.
    CuDnn,
    /// Flash attention: the fastest on compute capability 8.x.
    Flash,
    /// CUTLASS's memory-efficient attention.
    Efficient,
    /// Two matrix products and a softmax. The scores lie in memory.
    Math,
}

/// Names a kernel instead of the loader's choice.
const VARIABLE: &str = "STABLEHAND_CUDA_ATTENTION";

impl Attention {
    pub const ALL: [Self; 4] = [Self::CuDnn, Self::Flash, Self::Efficient, Self::Math];

    pub fn name(self) -> &'static str {
        match self {
            Self::CuDnn => "cudnn",
            Self::Flash => "flash",
            Self::Efficient => "efficient",
            Self::Math => "math",
        }
    }

    /// What the operator asked for, if anything.
    pub fn requested() -> Option<Self> {
        let name = env::var(VARIABLE).ok()?;
        let found = Self::ALL.into_iter().find(|attention| attention.name() == name);
        if found.is_none() && !name.is_empty() && name != "auto" {
            tracing::warn!("{VARIABLE} should be auto, cudnn, flash, efficient or math: '{name}' is ignored");
        }
        found
    }

    /// The kernels worth trying on a card of this compute capability, the fastest first.
    pub fn candidates(compute_capability: Option<(u32, u32)>) -> Vec<Self> {
        match compute_capability {
            Some((major, _)) if major < 8 => vec![Self::Efficient, Self::Math],
            Some((8, _)) => vec![Self::Flash, Self::Efficient, Self::Math],
            _ => vec![Self::CuDnn, Self::Flash, Self::Efficient, Self::Math],
        }
    }

    pub(super) fn flags(self) -> AttentionBackend {
        let slower = AttentionBackend::EFFICIENT_ATTENTION | AttentionBackend::MATH;
        match self {
            Self::CuDnn => AttentionBackend::CUDNN_FLASH_ATTENTION | slower,
            Self::Flash => AttentionBackend::FLASH_ATTENTION | slower,
            Self::Efficient => slower,
            Self::Math => AttentionBackend::MATH,
        }
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_of_cards_tries_its_fastest_kernel_first() {
        for (capability, first) in [
            (Some((7, 5)), Attention::Efficient),
            (Some((8, 0)), Attention::Flash),
            (Some((8, 9)), Attention::Flash),
            (Some((9, 0)), Attention::CuDnn),
            (Some((12, 0)), Attention::CuDnn),
            (None, Attention::CuDnn),
        ] {
            let candidates = Attention::candidates(capability);
            assert_eq!((candidates[0], candidates.last()), (first, Some(&Attention::Math)), "{capability:?}");
        }
    }
}
