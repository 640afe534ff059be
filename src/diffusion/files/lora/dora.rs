//! `DoRA`: the changed weight gets other lengths, for each of its outputs or its inputs.
//!
//! LyCORIS (`weight_decompose` of `lycoris/functional/general.py`) has lengths in `dora_scale`, whose shape tells the side;
//! a scale goes from the changed weight's own lengths to those. PEFT has lengths for outputs (`lora_magnitude_vector`), and
//! a scale multiplies the product only. Each file is merged as its own trainer merges it.

use super::role::Role;
use super::source::{Size, Source};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dora {
    size: Size,
    role: Role,
    on_input: bool,
}

impl Dora {
    /// None where the module has no lengths.
    pub fn fit(source: Source<'_>, size: Size, target: &str) -> Result<Option<Self>, String> {
        let role = match (source.has(Role::DoraScale), source.has(Role::Magnitude)) {
            (false, false) => return Ok(None),
            (true, _) => Role::DoraScale,
            (false, true) => Role::Magnitude,
        };
        let on_input = match *source.shape(role) {
            _ if role == Role::Magnitude => false,
            [1, inputs, ..] if size.outputs != 1 || inputs != 1 => inputs == size.inputs,
            _ => false,
        };
        source.expect_count(role, if on_input { size.inputs } else { size.outputs }, target)?;
        Ok(Some(Self { size, role, on_input }))
    }

    /// What a change that adds `delta` at scale 1 adds with its lengths at this scale.
    pub fn delta(
        &self,
        source: Source<'_>,
        original: &[f32],
        delta: &[f32],
        scale: f32,
    ) -> Result<Vec<f32>, String> {
        let wanted = source.values(self.role)?;
        let (own, toward) = match self.role {
            Role::Magnitude => (scale, 1.0),
            _ => (1.0, scale),
        };
        let mut changed: Vec<f32> =
            original.iter().zip(delta).map(|(weight, delta)| weight + own * delta).collect();
        let mut squares = vec![0.0_f64; wanted.len()];
        self.size.each_channel(&mut changed, self.on_input, |channel, values| {
            if let Some(square) = squares.get_mut(channel) {
                *square += values.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>();
            }
        });
        #[expect(clippy::cast_possible_truncation, reason = "lengths of weights")]
        let factors = squares.iter().zip(&wanted).map(|(square, wanted)| {
            let length = square.sqrt() as f32 + f32::EPSILON;
            toward * (wanted / length - 1.0) + 1.0
        });
        let factors: Vec<f32> = factors.collect();
        self.size.each_channel(&mut changed, self.on_input, |channel, values| {
            let factor = factors.get(channel).copied().unwrap_or(1.0);
            for value in values {
                *value *= factor;
            }
        });
        changed.iter_mut().zip(original).for_each(|(value, weight)| *value -= weight);
        Ok(changed)
    }
}
