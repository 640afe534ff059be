//! The outer layers of a UNet as a session of its own, for the calls between two whole ones.
//!
//! From step to step, the features deep in a UNet change little (DeepCache, Ma et al. 2023, arXiv 2312.00858). A call of the
//! outer layers takes them from the last whole call: it runs the first convolution, the last layer of the way up and the last
//! convolution. Its session reads the weights of the whole UNet. `models/graphs/unet.py` has both graphs.

use std::sync::Arc;
use std::time::Duration;

use super::session::{OuterLayers, PartSession};
use super::{ModelError, UNet};
use crate::diffusion::files::{GraphBuild, WeightlessGraph, Weights};
use crate::domain::{ModelPart, Precision};
use crate::runtime::Runtime;

/// The outer layers of one UNet.
pub(super) enum Shallow {
    /// Its graph gives no deep feature, or there is no graph for its outer layers.
    Impossible,
    /// Few requests ask for it, so the session is made for the first one.
    Unmade(Arc<WeightlessGraph>, GraphBuild, Runtime),
    Made(Box<UNet>),
}

impl Shallow {
    pub fn new(outer_layers: Option<OuterLayers>, runtime: &Runtime) -> Result<Self, ModelError> {
        Ok(match outer_layers {
            None => Self::Impossible,
            Some(OuterLayers::Graph(graph, build)) => Self::Unmade(graph, build, runtime.clone()),
            Some(OuterLayers::Session(session)) => Self::Made(Box::new(UNet::new(*session, runtime)?)),
        })
    }

    /// Whether there is a session now. `weights` are those of the whole UNet in memory.
    pub fn ready(&mut self, weights: Option<&Weights>) -> Result<bool, ModelError> {
        if let (Self::Unmade(graph, build, runtime), Some(weights)) = (&*self, weights) {
            let weights = (weights, *build);
            let session =
                PartSession::with_weights(ModelPart::UNet, graph, weights, Precision::Full, runtime)?;
            *self = Self::Made(Box::new(UNet::new(session, runtime)?));
        }
        Ok(matches!(self, Self::Made(_)))
    }

    pub fn made(&mut self) -> Option<&mut UNet> {
        match self {
            Self::Made(unet) => Some(unet),
            Self::Impossible | Self::Unmade(..) => None,
        }
    }

    pub fn bound_bytes(&self) -> u64 {
        if let Self::Made(unet) = self { unet.bound_bytes() } else { 0 }
    }

    pub fn time_in_run(&self) -> Duration {
        if let Self::Made(unet) = self { unet.time_in_run() } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array3, Array4};

    use super::*;
    use crate::diffusion::files::ModelFiles;
    use crate::diffusion::nets::{EncodedPrompt, UNetRows, WorkingMemory};
    use crate::runtime::DeviceChoice;

    #[test]
    fn the_outer_layers_end_what_the_whole_unet_began() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let (files, _) = ModelFiles::open(None).unwrap();
        let session = PartSession::load(files.part(ModelPart::UNet).unwrap(), &runtime).unwrap();
        let mut unet = UNet::new(session, &runtime).unwrap();
        let wave = |index: usize| f32::from(u16::try_from(index % 1000).unwrap()).sin();
        let prompt = EncodedPrompt::new(Array3::from_shape_fn((1, 77, 160), |(_, t, d)| wave(7 * t + d)));
        // Odd in both directions.
        let sample =
            Array4::from_shape_fn((2, 4, 9, 13), |(b, c, y, x)| wave(500 * b + 117 * c + 13 * y + x));
        let mut rows = UNetRows {
            sample,
            timesteps: Array1::from_vec(vec![900.0, 20.5]),
            embeddings: vec![&prompt; 2],
            guidance_scales: vec![7.5; 2],
            features: Vec::new(),
        };
        assert!(unet.predict_shallow(&rows, WorkingMemory::Keep).is_err(), "nothing is ready");
        assert!(unet.ready_outer_layers().unwrap());
        let (whole, deep) = unet.predict_and_keep(&rows, WorkingMemory::Keep).unwrap();
        assert_eq!(whole, unet.predict(&rows, WorkingMemory::Keep).unwrap());
        assert_eq!(deep.dim(), (2, 48, 9, 13));
        rows.features = vec![deep];
        let outer = unet.predict_shallow(&rows, WorkingMemory::GiveBack).unwrap();
        let largest = whole.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let furthest = whole.iter().zip(&outer).fold(0.0_f32, |far, (a, b)| far.max((a - b).abs()));
        assert!(furthest <= 1e-5 * largest, "{furthest:e} of {largest}");
        rows.features[0].fill(0.0);
        assert_ne!(unet.predict_shallow(&rows, WorkingMemory::GiveBack).unwrap(), outer);
    }
}
