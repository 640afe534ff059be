//! How the UNet of a copy of a model differs from the model's own, apart from its weights.

use crate::domain::Precision;

/// The default is the model's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UNetForm {
    /// Whether it takes what ControlNets give.
    pub is_controlled: bool,
    pub precision: Precision,
}

impl UNetForm {
    pub fn is_usual(self) -> bool {
        self == Self::default()
    }
}
