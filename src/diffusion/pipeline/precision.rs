//! The precision that a request's pictures are drawn in.

use super::Pipeline;
use crate::diffusion::nets::UNetForm;
use crate::domain::{GenerationInput, Precision};
use crate::runtime::multiplies_int8;

impl Pipeline {
    /// How the UNet for a request differs from the model's own.
    pub(super) fn unet_form(&self, input: &GenerationInput) -> UNetForm {
        UNetForm { is_controlled: !input.controlnets.is_empty(), precision: self.precision(input) }
    }

    /// What becomes of the precision that a request asks for.
    pub(super) fn precision(&self, input: &GenerationInput) -> Precision {
        match self.without_int8() {
            None => input.precision,
            Some(_) => Precision::Full,
        }
    }

    /// A sentence for the client, if it asks for int8 and does not get it.
    pub(super) fn not_in_int8(&self, input: &GenerationInput) -> Option<String> {
        let why = self.without_int8().filter(|_| input.precision == Precision::Int8)?;
        Some(format!(
            "precision has no effect on this server, because {why}: the picture was drawn in full precision."
        ))
    }

    fn without_int8(&self) -> Option<&'static str> {
        why_not(self.device.is_cpu(), multiplies_int8())
    }
}

/// Why nothing is drawn in int8, if so.
fn why_not(is_cpu: bool, multiplies_int8: bool) -> Option<&'static str> {
    match (is_cpu, multiplies_int8) {
        (false, _) => Some("int8 is for the CPU, and it draws on a card"),
        (true, false) => Some("int8 needs an x86-64 processor with AVX2"),
        (true, true) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_is_for_processors_that_are_fast_at_it() {
        assert_eq!(why_not(true, true), None);
        assert_eq!(why_not(true, false), Some("int8 needs an x86-64 processor with AVX2"));
        for multiplies_int8 in [false, true] {
            assert_eq!(why_not(false, multiplies_int8), Some("int8 is for the CPU, and it draws on a card"));
        }
    }
}
