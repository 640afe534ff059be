//! The schedulers by the names that clients send.

use std::fmt;

/// A denoising scheduler, named as the hosted worker named it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    Ddim,
    Ddpm,
    DpmM,
    DpmS,
    EulerA,
    EulerD,
    Heun,
    Ipndm,
    Kdpm2A,
    Kdpm2D,
    KLms,
    /// For latent consistency models.
    Lcm,
    Pndm,
    UniPc,
}

impl SchedulerKind {
    pub const ALL: [SchedulerKind; 14] = [
        Self::Ddim,
        Self::Ddpm,
        Self::DpmM,
        Self::DpmS,
        Self::EulerA,
        Self::EulerD,
        Self::Heun,
        Self::Ipndm,
        Self::Kdpm2A,
        Self::Kdpm2D,
        Self::KLms,
        Self::Lcm,
        Self::Pndm,
        Self::UniPc,
    ];

    /// The contract's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::Ddpm => "DDPM",
            Self::DpmM => "DPM-M",
            Self::DpmS => "DPM-S",
            Self::EulerA => "EULER-A",
            Self::EulerD => "EULER-D",
            Self::Heun => "HEUN",
            Self::Ipndm => "IPNDM",
            Self::Kdpm2A => "KDPM2-A",
            Self::Kdpm2D => "KDPM2-D",
            Self::KLms => "K-LMS",
            Self::Lcm => "LCM",
            Self::Pndm => "PNDM",
            Self::UniPc => "UNIPC",
        }
    }

    /// The scheduler that a client's name means, the documented aliases included.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "KLMS" => Some(Self::KLms),
            "K_EULER" => Some(Self::EulerD),
            "K_EULER_ANCESTRAL" => Some(Self::EulerA),
            "DPMSolverMultistep" => Some(Self::DpmM),
            "UniPC" | "UniPCMultistep" => Some(Self::UniPc),
            _ => Self::ALL.into_iter().find(|kind| kind.as_str() == name),
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
