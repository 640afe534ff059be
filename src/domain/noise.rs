//! Where the random numbers of a picture come from.

/// Whose `torch.randn` a seed speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoiseSource {
    /// The CPU's Mersenne Twister, as diffusers' examples draw.
    #[default]
    Cpu,
    /// CUDA's Philox, as the hosted worker drew.
    Cuda,
}

impl NoiseSource {
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// torch's name of the device.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}
