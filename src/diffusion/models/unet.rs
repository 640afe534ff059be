//! The UNet: predicts the noise in a latent at a timestep, given a prompt's embedding.

use std::time::Duration;

use ndarray::{Array1, Array3, Array4, ArrayD, IxDyn};

use super::session::{Graph, Port, ranked, tensor};
use super::{ModelError, ModelFolder};
use crate::runtime::Runtime;

pub struct UNet {
    graph: Graph,
    sample: Port,
    timestep: Port,
    encoder_hidden_states: Port,
    out_sample: Port,
}

/// The rows of one call; row i of each belongs together.
pub struct UNetRows {
    /// `[rows, channels, height, width]`.
    pub sample: Array4<f32>,
    pub timesteps: Array1<f32>,
    /// `[rows, tokens, dim]`.
    pub embeddings: Array3<f32>,
}

impl UNet {
    pub fn load(folder: &ModelFolder, runtime: &Runtime) -> Result<Self, ModelError> {
        let graph = Graph::load(folder, "unet", runtime)?;
        let sample = graph.input("sample", |port| port.rank() == 4)?;
        let timestep = graph.input("timestep", |port| port.rank() <= 1)?;
        let encoder_hidden_states = graph.input("text embedding", |port| port.rank() == 3)?;
        let out_sample = graph.output("noise prediction", 4)?;
        let channels = sample.shape[1];
        if channels != 4 && channels != -1 {
            return Err(graph.refuse(format!("it takes {channels} channels; text-to-image UNets take 4")));
        }
        let (height, width) = (sample.shape[2], sample.shape[3]);
        if height > 0 && width > 0 {
            return Err(graph.refuse(format!(
                "it was exported for latents of {width}×{height} only; export it with dynamic axes"
            )));
        }
        Ok(Self { graph, sample, timestep, encoder_hidden_states, out_sample })
    }

    /// Whether rows at different timesteps can share a call.
    pub fn takes_mixed_timesteps(&self) -> bool {
        self.timestep.rank() == 1 && self.timestep.shape[0] != 1
    }

    /// Whether fractional timesteps are cut to whole ones on their way in.
    pub fn truncates_timesteps(&self) -> bool {
        self.timestep.is_integer()
    }

    /// The length of the text embedding that it was exported for, where it takes no other.
    pub fn tokens_read(&self) -> Option<usize> {
        usize::try_from(self.encoder_hidden_states.shape[1]).ok().filter(|&tokens| tokens > 0)
    }

    /// The noise prediction `[rows, channels, height, width]`.
    pub fn predict(&mut self, rows: &UNetRows) -> Result<Array4<f32>, ModelError> {
        let timesteps = match (self.timestep.rank(), self.takes_mixed_timesteps()) {
            (_, true) => rows.timesteps.clone().into_dyn(),
            (rank, false) => ArrayD::from_elem(IxDyn(&[1][..rank]), rows.timesteps[0]),
        };
        let inputs = vec![
            (self.sample.name.as_str(), tensor(&self.sample, &rows.sample)?),
            (self.timestep.name.as_str(), tensor(&self.timestep, &timesteps)?),
            (
                self.encoder_hidden_states.name.as_str(),
                tensor(&self.encoder_hidden_states, &rows.embeddings)?,
            ),
        ];
        ranked("unet", self.graph.run(inputs, &self.out_sample)?)
    }

    pub fn time_in_run(&self) -> Duration {
        self.graph.time_in_run()
    }
}
