//! A ControlNet: what to add to a UNet's skip connections and to its middle, given a picture to follow.

use ndarray::{Array1, Array4, Axis};

use super::port::Port;
use super::session::{PartSession, WorkingMemory, ranked, tensor};
use super::{EncodedPrompt, ModelError};
use crate::domain::ModelPart;

/// What diffusers calls the picture, `[1, 3, 8 × height, 8 × width]`, 0 to 1.
const HINT: &str = "controlnet_cond";
/// What our graphs call the values to add: `down_block_residual.0` and so on, from the largest size to the smallest.
pub(super) const DOWN_RESIDUAL: &str = "down_block_residual.";
pub(super) const MID_RESIDUAL: &str = "mid_block_residual";

pub struct ControlNet {
    session: PartSession,
    sample: Port,
    timestep: Port,
    encoder_hidden_states: Port,
    hint: Port,
    /// In the order of the UNet's inputs.
    residuals: Vec<Port>,
}

/// The rows of one call. Row i of each field belongs together.
pub struct ControlRows<'a> {
    /// `[rows, 4, height, width]`.
    pub sample: Array4<f32>,
    pub timesteps: Array1<f32>,
    /// All have the same number of tokens.
    pub embeddings: Vec<&'a EncodedPrompt>,
}

impl ControlNet {
    pub fn new(session: PartSession) -> Result<Self, ModelError> {
        let named = |name: &'static str| session.input(name, |port| port.name == name);
        let (sample, timestep) = (named("sample")?, named("timestep")?);
        let (encoder_hidden_states, hint) = (named("encoder_hidden_states")?, named(HINT)?);
        let residuals = residual_ports(session.outputs());
        Ok(Self { session, sample, timestep, encoder_hidden_states, hint, residuals })
    }

    /// What to add for each row: `[rows, channels, height, width]` for each skip connection, then for the middle. `hint` is
    /// one picture for all rows.
    pub fn residuals(
        &mut self,
        rows: &ControlRows<'_>,
        hint: &Array4<f32>,
        memory: WorkingMemory,
    ) -> Result<Vec<Array4<f32>>, ModelError> {
        let embeddings: Vec<_> =
            rows.embeddings.iter().map(|prompt| prompt.values().index_axis(Axis(0), 0)).collect();
        let embeddings = ndarray::stack(Axis(0), &embeddings)
            .map_err(|error| ModelError::Run { part: ModelPart::ControlNet, reason: error.to_string() })?;
        let inputs = vec![
            (self.sample.name.as_str(), tensor(&self.sample, &rows.sample)?),
            (self.timestep.name.as_str(), tensor(&self.timestep, &rows.timesteps)?),
            (self.encoder_hidden_states.name.as_str(), tensor(&self.encoder_hidden_states, &embeddings)?),
            (self.hint.name.as_str(), tensor(&self.hint, hint)?),
        ];
        let outputs = self.session.run_for_all(memory, inputs, &self.residuals)?;
        outputs.into_iter().map(|output| ranked(ModelPart::ControlNet, output)).collect()
    }
}

/// The ports for the values to add, in the order of their numbers, and then the middle's. Empty for graphs without them.
pub(super) fn residual_ports(ports: &[Port]) -> Vec<Port> {
    let number = |port: &Port| port.name.strip_prefix(DOWN_RESIDUAL)?.parse::<usize>().ok();
    let mut down: Vec<(usize, &Port)> = ports.iter().filter_map(|port| Some((number(port)?, port))).collect();
    down.sort_unstable_by_key(|(number, _)| *number);
    let mid = ports.iter().filter(|port| port.name == MID_RESIDUAL);
    down.into_iter().map(|(_, port)| port).chain(mid).cloned().collect()
}
