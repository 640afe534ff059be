//! The parts of a Stable Diffusion v1 model.

use std::fmt;

/// One part, which diffusers and its ONNX exporters keep in a folder of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModelPart {
    TextEncoder,
    UNet,
    VaeDecoder,
    VaeEncoder,
    SafetyChecker,
    /// The decoder of a tiny VAE, which a model may have beside its own.
    TinyVae,
    /// Not part of a model: it comes in a file of its own.
    ControlNet,
}

impl ModelPart {
    /// The parts that a model may have as graphs.
    pub const ALL: [Self; 5] =
        [Self::TextEncoder, Self::UNet, Self::VaeDecoder, Self::VaeEncoder, Self::SafetyChecker];
    /// The parts that every model needs; the others add abilities.
    pub const REQUIRED: [Self; 3] = [Self::TextEncoder, Self::UNet, Self::VaeDecoder];
    /// The parts whose weights LoRAs change.
    pub const ADAPTABLE: [Self; 2] = [Self::TextEncoder, Self::UNet];

    pub const fn name(self) -> &'static str {
        match self {
            Self::TextEncoder => "text_encoder",
            Self::UNet => "unet",
            Self::VaeDecoder => "vae_decoder",
            Self::VaeEncoder => "vae_encoder",
            Self::SafetyChecker => "safety_checker",
            Self::TinyVae => "vae_tiny",
            Self::ControlNet => "controlnet",
        }
    }
}

impl fmt::Display for ModelPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
