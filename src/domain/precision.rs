//! In which precision a picture is drawn.

/// The precision of the UNet's linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// That of the device: float32 on a CPU, float16 on a card.
    #[default]
    Full,
    /// Numbers of eight bits: faster on a CPU, and other pictures.
    Int8,
}

impl Precision {
    pub const ALL: [Self; 2] = [Self::Full, Self::Int8];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Int8 => "int8",
        }
    }
}
