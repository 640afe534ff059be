//! The VAE's decoder: latents in, pixels out.

use std::time::Duration;

use ndarray::Array4;

use super::session::{Graph, Port, ranked, tensor};
use super::{ModelError, ModelFolder};
use crate::runtime::Runtime;

pub struct VaeDecoder {
    graph: Graph,
    latent_sample: Port,
    sample: Port,
    scaling_factor: f32,
}

impl VaeDecoder {
    pub fn load(folder: &ModelFolder, scaling_factor: f32, runtime: &Runtime) -> Result<Self, ModelError> {
        let graph = Graph::load(folder, "vae_decoder", runtime)?;
        let latent_sample = graph.input("latents", |port| port.rank() == 4)?;
        graph.only(&[&latent_sample])?;
        if let (Some(height), Some(width)) = (latent_sample.fixed(2), latent_sample.fixed(3)) {
            return Err(graph.refuse(format!(
                "it was exported for latents of {width}×{height} only; export it with dynamic axes"
            )));
        }
        let sample = graph.output("picture", 4)?;
        Ok(Self { graph, latent_sample, sample, scaling_factor })
    }

    /// Pixels `[n, 3, height, width]` of about -1..1 from the UNet's latents `[n, 4, h, w]`.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<Array4<f32>, ModelError> {
        let unscaled = latents / self.scaling_factor;
        let inputs = vec![(self.latent_sample.name.as_str(), tensor(&self.latent_sample, &unscaled)?)];
        ranked("vae_decoder", self.graph.run(inputs, &self.sample)?)
    }

    pub fn time_in_run(&self) -> Duration {
        self.graph.time_in_run()
    }
}
