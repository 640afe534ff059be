//! The UNet: predicts the noise in a latent at a timestep, given a prompt's embedding.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ndarray::{Array1, Array3, Array4, ArrayD, Axis, IxDyn};

use super::card_turn::OnTurn;
use super::controlnet::{residual_ports, residual_shape};
use super::guidance::guidance_embedding;
use super::port::Port;
use super::replay::{Call, Input, Output, Replays, Values};
use super::session::{PartSession, WorkingMemory, ranked, tensor};
use super::shallow::Shallow;
use super::{ModelError, TextEncoder};
use crate::diffusion::files::{DEEP_FEATURE, Weights};
use crate::domain::{ModelFamily, ModelPart};
use crate::runtime::Runtime;

/// Latents, mask and masked image's latents.
const INPAINTING_CHANNELS: usize = 9;
/// InstructPix2Pix': latents, and those of the picture to change.
pub const EDITING_CHANNELS: usize = 8;
/// Latents.
const USUAL_CHANNELS: usize = 4;
const CHANNELS: [usize; 3] = [USUAL_CHANNELS, EDITING_CHANNELS, INPAINTING_CHANNELS];
/// What diffusers and its exporters call the embedding of the guidance scale, and its usual width.
const GUIDANCE_INPUT: &str = "timestep_cond";
const USUAL_WIDTH: usize = 256;

pub struct UNet {
    session: PartSession,
    sample: Port,
    /// Of `sample`.
    channels: usize,
    timestep: Port,
    encoder_hidden_states: Port,
    /// The embedding of the guidance scale, for a UNet that was distilled with guidance.
    timestep_cond: Option<Port>,
    /// The inputs for feature maps. Empty for a UNet that takes none.
    features: Vec<Port>,
    out_sample: Port,
    /// What comes into the last layer of its way up, if its graph gives that.
    deep_feature: Option<Port>,
    outer_layers: Shallow,
    /// Captured graphs of its calls, on a card. Their bindings hold the session, too.
    replays: Option<OnTurn<Replays>>,
}

/// The rows of one call. Row i of each field belongs together.
pub struct UNetRows<'a> {
    /// `[rows, channels, height, width]`.
    pub sample: Array4<f32>,
    pub timesteps: Array1<f32>,
    /// All have the same number of tokens.
    pub embeddings: Vec<&'a EncodedPrompt>,
    /// For a UNet that embeds them.
    pub guidance_scales: Vec<f32>,
    /// For a UNet that takes feature maps, `[rows, channels, height, width]` each: what ControlNets add to each skip
    /// connection, then to the middle; or the deep feature of an earlier call.
    pub features: Vec<Array4<f32>>,
}

/// The text encoder's output for a prompt. Its unique number shows whether a card has it already.
pub struct EncodedPrompt {
    number: u64,
    values: Array3<f32>,
}

impl EncodedPrompt {
    /// `values` are `[1, tokens, dim]`.
    pub fn new(values: Array3<f32>) -> Self {
        Self { number: unique_number(), values }
    }

    pub fn values(&self) -> &Array3<f32> {
        &self.values
    }
}

/// A number that no other value has.
pub(super) fn unique_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The embeddings of a call's rows for captured graphs.
pub(super) fn prompts<'a>(port: &'a Port, embeddings: &[&'a EncodedPrompt]) -> Input<'a> {
    let rows = embeddings.iter().map(|prompt| prompt.values.index_axis(Axis(0), 0).into_dyn()).collect();
    let numbers = Some(embeddings.iter().map(|prompt| prompt.number).collect());
    Input { name: &port.name, values: Values::Rows(rows), numbers }
}

impl UNet {
    pub fn new(mut session: PartSession, runtime: &Runtime) -> Result<Self, ModelError> {
        let outer_layers = session.take_outer_layers();
        let sample = session.input("sample", |port| port.rank() == 4)?;
        let timestep = session.input("timestep", |port| port.rank() <= 1)?;
        let encoder_hidden_states = session.input("text embedding", |port| port.rank() == 3)?;
        let out_sample = session.output("noise prediction", 4)?;
        let timestep_cond =
            session.input("guidance embedding", |port| port.name == GUIDANCE_INPUT && port.rank() == 2).ok();
        let mut known = vec![&sample, &timestep, &encoder_hidden_states];
        let is_feature = |port: &&Port| port.name == DEEP_FEATURE;
        let mut features = residual_ports(session.inputs());
        features.extend(session.inputs().iter().find(is_feature).cloned());
        let deep_feature = session.outputs().iter().find(is_feature).cloned();
        known.extend(&timestep_cond);
        known.extend(&features);
        session.only(&known)?;
        let is_known =
            |channels: i64| usize::try_from(channels).is_ok_and(|channels| CHANNELS.contains(&channels));
        if let Some(channels) = sample.fixed(1).filter(|channels| !is_known(*channels)) {
            return Err(session.refuse(format!(
                "it takes {channels} channels; a UNet should take {USUAL_CHANNELS}, {INPAINTING_CHANNELS} for \
                 inpainting, or {EDITING_CHANNELS} for InstructPix2Pix"
            )));
        }
        let width = encoder_hidden_states.fixed(2).and_then(|width| usize::try_from(width).ok());
        let family = width.and_then(ModelFamily::from_embedding_width);
        if let Some(other) = family.filter(|family| *family != ModelFamily::StableDiffusion1) {
            return Err(session.refuse(format!("it belongs to {other}, not to Stable Diffusion v1")));
        }
        if let (Some(height), Some(width)) = (sample.fixed(2), sample.fixed(3)) {
            return Err(session.refuse(format!(
                "it was exported for latents of {width}×{height} only; export it with dynamic axes"
            )));
        }
        if let Some(rows) = sample.fixed(0) {
            return Err(session
                .refuse(format!("it was exported for a batch of {rows} only; export it with dynamic axes")));
        }
        let replays = session.replays(runtime)?;
        let outer_layers = Shallow::new(outer_layers.filter(|_| deep_feature.is_some()), runtime)?;
        let stated = sample.fixed(1).and_then(|channels| usize::try_from(channels).ok());
        let channels = stated.unwrap_or(USUAL_CHANNELS);
        Ok(Self {
            session,
            sample,
            channels,
            timestep,
            encoder_hidden_states,
            timestep_cond,
            features,
            out_sample,
            deep_feature,
            outer_layers,
            replays,
        })
    }

    /// With so many channels, as its configuration says, if its graph does not state them.
    pub fn with_channels(mut self, channels: Option<usize>) -> Self {
        let is_open = self.sample.fixed(1).is_none();
        let known = channels.filter(|channels| CHANNELS.contains(channels));
        self.channels = known.filter(|_| is_open).unwrap_or(self.channels);
        self
    }

    /// The channels of its input: those of latents alone if neither its graph nor its configuration states them.
    pub fn in_channels(&self) -> usize {
        self.channels
    }

    /// The width of the embeddings that it reads. If the graph does not state it, that of Stable Diffusion v1.
    pub fn text_width(&self) -> usize {
        self.encoder_hidden_states.fixed(2).and_then(|width| usize::try_from(width).ok()).unwrap_or(768)
    }

    /// Fails if the text encoder's embeddings have another width than this UNet reads.
    pub fn check_text_encoder(&self, text_encoder: &TextEncoder) -> Result<(), ModelError> {
        match (self.encoder_hidden_states.fixed(2), text_encoder.width()) {
            (Some(read), Some(written)) if read != written => Err(self.session.refuse(format!(
                "it reads embeddings of width {read}, but the text encoder writes width {written}: they belong to different models"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether it takes the guidance scale as an embedding. Then no second row is drawn to be guided away from.
    pub fn embeds_guidance(&self) -> bool {
        self.timestep_cond.is_some()
    }

    /// Whether rows at different timesteps can share a call.
    pub fn takes_mixed_timesteps(&self) -> bool {
        self.timestep.rank() == 1 && self.timestep.shape[0] != 1
    }

    /// Whether it takes a mask and the masked picture's latents beside the noisy latents.
    pub fn is_inpainting(&self) -> bool {
        self.in_channels() == INPAINTING_CHANNELS
    }

    /// Whether it changes a picture as the prompt says: it takes the picture's latents beside the noisy latents.
    pub fn edits_images(&self) -> bool {
        self.in_channels() == EDITING_CHANNELS
    }

    /// Whether fractional timesteps are truncated.
    pub fn truncates_timesteps(&self) -> bool {
        self.timestep.is_integer()
    }

    /// The length of the text embedding, if the graph fixes it.
    pub fn tokens_read(&self) -> Option<usize> {
        usize::try_from(self.encoder_hidden_states.shape[1]).ok().filter(|&tokens| tokens > 0)
    }

    /// The noise prediction `[rows, channels, height, width]`. `memory` says what becomes of the memory that it took.
    pub fn predict(&mut self, rows: &UNetRows<'_>, memory: WorkingMemory) -> Result<Array4<f32>, ModelError> {
        let out_sample = self.out_sample.clone();
        ranked(ModelPart::UNet, self.run(rows, memory, &[(out_sample, USUAL_CHANNELS)])?.remove(0))
    }

    /// The same, and the deep feature of each row, `[rows, features, height, width]`.
    pub fn predict_and_keep(
        &mut self,
        rows: &UNetRows<'_>,
        memory: WorkingMemory,
    ) -> Result<(Array4<f32>, Array4<f32>), ModelError> {
        let Some(deep_feature) = self.deep_feature.clone() else { return Err(self.no_outer_layers()) };
        let channels = deep_feature.fixed(1).and_then(|channels| usize::try_from(channels).ok()).unwrap_or(0);
        let outputs = [(self.out_sample.clone(), USUAL_CHANNELS), (deep_feature, channels)];
        let mut given = self.run(rows, memory, &outputs)?.into_iter();
        let mut next = || ranked(ModelPart::UNet, given.next().unwrap_or_default());
        Ok((next()?, next()?))
    }

    /// The noise prediction of the outer layers. `rows.features` has the deep feature of each row from an earlier call.
    pub fn predict_shallow(
        &mut self,
        rows: &UNetRows<'_>,
        memory: WorkingMemory,
    ) -> Result<Array4<f32>, ModelError> {
        match self.outer_layers.made() {
            Some(outer_layers) => outer_layers.predict(rows, memory),
            None => Err(self.no_outer_layers()),
        }
    }

    /// Whether [`Self::predict_shallow`] is possible. Makes the session for it, if there is none yet.
    pub fn ready_outer_layers(&mut self) -> Result<bool, ModelError> {
        self.outer_layers.ready(self.session.weights())
    }

    fn no_outer_layers(&self) -> ModelError {
        self.session.refuse("it has no outer layers of its own")
    }

    /// These outputs of a call, each with its channels.
    fn run(
        &mut self,
        rows: &UNetRows<'_>,
        memory: WorkingMemory,
        outputs: &[(Port, usize)],
    ) -> Result<Vec<ArrayD<f32>>, ModelError> {
        let guidance = self.timestep_cond.as_ref().map(|port| {
            let width = port.fixed(1).and_then(|width| usize::try_from(width).ok()).unwrap_or(USUAL_WIDTH);
            guidance_embedding(&rows.guidance_scales, width)
        });
        if let Some(replays) = &mut self.replays {
            let mut inputs = vec![
                Input::rows(&self.sample.name, &rows.sample),
                Input::rows(&self.timestep.name, &rows.timesteps),
                prompts(&self.encoder_hidden_states, &rows.embeddings),
            ];
            if let (Some(port), Some(guidance)) = (&self.timestep_cond, &guidance) {
                inputs.push(Input::rows(&port.name, guidance));
            }
            let features = self.features.iter().zip(&rows.features);
            inputs.extend(features.map(|(port, feature)| Input::rows(&port.name, feature)));
            let (count, _, height, width) = rows.sample.dim();
            let outputs = outputs
                .iter()
                .map(|(port, channels)| Output { name: &port.name, shape: vec![*channels, height, width] });
            let call = Call { rows: count, inputs, outputs: outputs.collect() };
            if let Some(outputs) = self.session.run_by(|session| replays.run(session, &call))? {
                return Ok(outputs);
            }
        }
        let embeddings: Vec<_> =
            rows.embeddings.iter().map(|prompt| prompt.values.index_axis(Axis(0), 0)).collect();
        let embeddings = ndarray::stack(Axis(0), &embeddings)
            .map_err(|error| ModelError::Run { part: ModelPart::UNet, reason: error.to_string() })?;
        let timesteps = match (self.timestep.rank(), self.takes_mixed_timesteps()) {
            (_, true) => rows.timesteps.clone().into_dyn(),
            (rank, false) => ArrayD::from_elem(IxDyn(&[1][..rank]), rows.timesteps[0]),
        };
        let mut inputs = vec![
            (self.sample.name.as_str(), tensor(&self.sample, &rows.sample)?),
            (self.timestep.name.as_str(), tensor(&self.timestep, &timesteps)?),
            (self.encoder_hidden_states.name.as_str(), tensor(&self.encoder_hidden_states, &embeddings)?),
        ];
        if let (Some(port), Some(guidance)) = (&self.timestep_cond, &guidance) {
            inputs.push((port.name.as_str(), tensor(port, guidance)?));
        }
        for (port, feature) in self.features.iter().zip(&rows.features) {
            inputs.push((port.name.as_str(), tensor(port, feature)?));
        }
        let ports: Vec<Port> = outputs.iter().map(|(port, _)| port.clone()).collect();
        self.session.run_for_all(memory, inputs, &ports)
    }

    /// Channels, height and width of each value that it takes from ControlNets, for latents of this height and width. Empty
    /// for a UNet that takes none.
    pub fn residual_shapes(&self, height: usize, width: usize) -> Vec<[usize; 3]> {
        self.features.iter().map(|port| residual_shape(port, height, width)).collect()
    }

    /// The bytes that its captured graphs' tensors take on a card.
    pub fn bound_bytes(&self) -> u64 {
        let own = self.replays.as_ref().map_or(0, |replays| replays.bytes() as u64);
        own + self.outer_layers.bound_bytes()
    }

    /// Its weights in memory, for another session with the same. `None` if a card or its graph has them.
    pub fn weights(&self) -> Option<&Weights> {
        self.session.weights()
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run() + self.outer_layers.time_in_run()
    }
}
