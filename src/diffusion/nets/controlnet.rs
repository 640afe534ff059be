//! A ControlNet: what to add to a UNet's skip connections and to its middle, given a picture to follow.

use ndarray::{Array1, Array4, Axis};

use super::card_turn::OnTurn;
use super::port::Port;
use super::replay::{Call, Input, Output, Replays, Values};
use super::session::{PartSession, WorkingMemory, ranked, tensor};
use super::unet::{prompts, unique_number};
use super::{EncodedPrompt, ModelError};
use crate::domain::ModelPart;
use crate::runtime::Runtime;

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
    /// Captured graphs of its calls, on a card. Their bindings hold the session, too.
    replays: Option<OnTurn<Replays>>,
}

/// The picture that a ControlNet follows. Its unique number shows whether a card has it already.
pub struct Hint {
    number: u64,
    /// `[1, 3, 8 × height, 8 × width]`, 0 to 1.
    values: Array4<f32>,
}

impl Hint {
    pub fn new(values: Array4<f32>) -> Self {
        Self { number: unique_number(), values }
    }
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
    pub fn new(session: PartSession, runtime: &Runtime) -> Result<Self, ModelError> {
        let named = |name: &'static str| session.input(name, |port| port.name == name);
        let (sample, timestep) = (named("sample")?, named("timestep")?);
        let (encoder_hidden_states, hint) = (named("encoder_hidden_states")?, named(HINT)?);
        let residuals = residual_ports(session.outputs());
        let replays = session.replays(runtime)?;
        Ok(Self { session, sample, timestep, encoder_hidden_states, hint, residuals, replays })
    }

    /// What to add for each row: `[rows, channels, height, width]` for each skip connection, then for the middle. `hint` is
    /// one picture for all rows.
    pub fn residuals(
        &mut self,
        rows: &ControlRows<'_>,
        hint: &Hint,
        memory: WorkingMemory,
    ) -> Result<Vec<Array4<f32>>, ModelError> {
        if let Some(replays) = &mut self.replays {
            let (count, _, height, width) = rows.sample.dim();
            let picture = Values::Shared(hint.values.view().into_dyn());
            let inputs = vec![
                Input::rows(&self.sample.name, &rows.sample),
                Input::rows(&self.timestep.name, &rows.timesteps),
                prompts(&self.encoder_hidden_states, &rows.embeddings),
                Input { name: &self.hint.name, values: picture, numbers: Some(vec![hint.number]) },
            ];
            let outputs = self.residuals.iter().map(|port| {
                let shape = residual_shape(port, height, width).to_vec();
                Output { name: &port.name, shape }
            });
            let call = Call { rows: count, inputs, outputs: outputs.collect() };
            if let Some(outputs) = self.session.run_by(|session| replays.run(session, &call))? {
                return outputs.into_iter().map(|output| ranked(ModelPart::ControlNet, output)).collect();
            }
        }
        let embeddings: Vec<_> =
            rows.embeddings.iter().map(|prompt| prompt.values().index_axis(Axis(0), 0)).collect();
        let embeddings = ndarray::stack(Axis(0), &embeddings)
            .map_err(|error| ModelError::Run { part: ModelPart::ControlNet, reason: error.to_string() })?;
        let inputs = vec![
            (self.sample.name.as_str(), tensor(&self.sample, &rows.sample)?),
            (self.timestep.name.as_str(), tensor(&self.timestep, &rows.timesteps)?),
            (self.encoder_hidden_states.name.as_str(), tensor(&self.encoder_hidden_states, &embeddings)?),
            (self.hint.name.as_str(), tensor(&self.hint, &hint.values)?),
        ];
        let outputs = self.session.run_for_all(memory, inputs, &self.residuals)?;
        outputs.into_iter().map(|output| ranked(ModelPart::ControlNet, output)).collect()
    }

    /// The bytes that its captured graphs' tensors take on a card.
    pub fn bound_bytes(&self) -> u64 {
        self.replays.as_ref().map_or(0, |replays| replays.bytes() as u64)
    }
}

/// Channels, height and width of a value to add, for latents of this height and width.
pub(super) fn residual_shape(port: &Port, height: usize, width: usize) -> [usize; 3] {
    // A convolution with stride 2 rounds up.
    let halved = |side: usize, times: u32| (0..times).fold(side, |side, _| side.div_ceil(2));
    let channels = port.fixed(1).and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    [channels, halved(height, port.halvings(2)), halved(width, port.halvings(3))]
}

/// The ports for the values to add, in the order of their numbers, and then the middle's. Empty for graphs without them.
pub(super) fn residual_ports(ports: &[Port]) -> Vec<Port> {
    let number = |port: &Port| port.name.strip_prefix(DOWN_RESIDUAL)?.parse::<usize>().ok();
    let mut down: Vec<(usize, &Port)> = ports.iter().filter_map(|port| Some((number(port)?, port))).collect();
    down.sort_unstable_by_key(|(number, _)| *number);
    let mid = ports.iter().filter(|port| port.name == MID_RESIDUAL);
    down.into_iter().map(|(_, port)| port).chain(mid).cloned().collect()
}
