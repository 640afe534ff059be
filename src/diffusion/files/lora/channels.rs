//! What (IA)³ makes of a weight: a factor for each channel of its output, or of its input.
//!
//! LyCORIS' file has the factors less one (`weight`) and says which channels they are for (`on_input`). PEFT's has the
//! factors themselves (`ia3_l`); those of the output multiply the bias too.

use super::peft_config::PeftConfig;
use super::role::Role;
use super::source::{Size, Source};
use crate::domain::ModelPart;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Channels {
    size: Size,
    role: Role,
    on_input: bool,
    /// What the file's numbers are when nothing changes.
    neutral: f32,
}

impl Channels {
    /// LyCORIS'.
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Self, String> {
        source.require(Role::Channels, "weight", Role::OnInput)?;
        let on_input = source.number(Role::OnInput)?.is_some_and(|flag| flag != 0.0);
        let role = Role::Channels;
        source.expect_count(role, if on_input { size.inputs } else { size.outputs }, target)?;
        Ok(Self { size, role, on_input, neutral: 0.0 })
    }

    /// PEFT's. Its shape tells the side; where it cannot, the configuration's `feedforward_modules` do.
    pub fn fit_peft(
        source: Source<'_>,
        size: Size,
        target: &str,
        (part, module, config): (ModelPart, &str, &PeftConfig),
    ) -> Result<Self, String> {
        let role = Role::Ia3;
        let on_input = match *source.shape(role) {
            [outputs, 1] if outputs == size.outputs && outputs != 1 => false,
            [1, inputs] if inputs == size.inputs => true,
            [1, channels, 1, 1] if size.inputs != size.outputs => channels == size.inputs,
            [1, _, 1, 1] => config.is_feedforward(part, module).ok_or_else(|| {
                format!(
                    "its tensor {} may be for the input or the output of {target}: put its adapter_config.json beside it",
                    source.quoted(role)
                )
            })?,
            _ => false,
        };
        source.expect_count(role, if on_input { size.inputs } else { size.outputs }, target)?;
        Ok(Self { size, role, on_input, neutral: 1.0 })
    }

    /// What the change adds to the weight.
    pub fn delta(&self, source: Source<'_>, original: &[f32]) -> Result<Vec<f32>, String> {
        let factors = source.values(self.role)?;
        let mut delta = original.to_vec();
        self.size.each_channel(&mut delta, self.on_input, |channel, values| {
            let factor = factors.get(channel).map_or(0.0, |factor| factor - self.neutral);
            for value in values {
                *value *= factor;
            }
        });
        Ok(delta)
    }

    /// What it adds to the bias, where it changes that.
    pub fn delta_of_bias(&self, source: Source<'_>, original: &[f32]) -> Result<Vec<f32>, String> {
        let factors = source.values(self.role)?;
        Ok(original.iter().zip(factors).map(|(value, factor)| value * (factor - self.neutral)).collect())
    }

    pub fn changes_bias(&self) -> bool {
        self.role == Role::Ia3 && !self.on_input
    }
}
