//! The random number generator of a picture's noise.

/// The device whose `torch.randn` a seed gives the numbers of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NoiseSource {
    /// The CPU's Mersenne Twister, which diffusers' examples use.
    #[default]
    Cpu,
    /// CUDA's Philox, which the hosted worker used.
    Cuda,
}

impl NoiseSource {
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Cuda];

    /// torch's name for the device.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}
