//! Which build of our graphs suits a device and its processor.

use std::borrow::Cow;
use std::sync::OnceLock;

use ndarray::Array4;
use ort::value::Tensor;

use super::ModelError;
use crate::diffusion::files::{LOCATION, WeightlessGraph};
use crate::runtime::{self, Device, GraphSource, Runtime, RuntimeError};

/// As the files in `models/graphs` are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphBuild {
    Cpu,
    /// For processors with convolutions in blocks of so many channels.
    Nchwc {
        channels_in_a_block: usize,
    },
    Cuda,
}

/// One such convolution, of 16 channels.
static PROBE: &[u8] = include_bytes!("../../../models/graphs/probe.nchwc.onnx");

impl GraphBuild {
    /// The best for this runtime. Tries out, once, what the processor has.
    pub fn of(runtime: &Runtime) -> Self {
        static BLOCK: OnceLock<Option<usize>> = OnceLock::new();
        if !runtime.device().is_cpu() {
            return Self::Cuda;
        }
        match *BLOCK.get_or_init(|| [16, 8].into_iter().find(|block| has_blocks_of(*block, runtime))) {
            Some(channels_in_a_block) => Self::Nchwc { channels_in_a_block },
            None => Self::Cpu,
        }
    }

    /// One that will do to look at, without a runtime.
    pub fn plain(device: &Device) -> Self {
        if device.is_cpu() { Self::Cpu } else { Self::Cuda }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Nchwc { .. } => "nchwc",
            Self::Cuda => "cuda",
        }
    }

    pub fn channels_in_a_block(self) -> usize {
        match self {
            Self::Nchwc { channels_in_a_block } => channels_in_a_block,
            Self::Cpu | Self::Cuda => 0,
        }
    }
}

/// Whether a convolution in blocks of this size gives what it should: with another size its sums are others.
fn has_blocks_of(channels: usize, runtime: &Runtime) -> bool {
    try_out(channels, runtime).unwrap_or_else(|error| {
        tracing::debug!(%error, channels, "no convolutions in blocks");
        false
    })
}

fn try_out(channels: usize, runtime: &Runtime) -> Result<bool, ModelError> {
    let failed = |error: ort::Error| ModelError::Runtime(RuntimeError::Graph(runtime::reason(&error)));
    let graph = WeightlessGraph::read(Cow::Borrowed(PROBE), channels)?;
    let mut weights = graph.allocate();
    // Each channel of the result is the next one of the input.
    let shift: Vec<f32> = (0..256).map(|index| f32::from(u8::from(index % 16 == index / 16 + 1))).collect();
    for (_, mut writer) in weights.writers().into_iter().filter(|(name, _)| *name == "probe.weight") {
        writer.write(&shift);
    }
    let source =
        GraphSource::Weightless { onnx: graph.onnx(), location: LOCATION, weights: weights.buffer() };
    let mut session = runtime.session(source)?;
    let given: Vec<f32> = (0..16_u8).map(f32::from).collect();
    let x = Array4::from_shape_vec((1, 16, 1, 1), given.clone()).unwrap_or_default();
    let outputs = session.run(ort::inputs!["x" => Tensor::from_array(x).map_err(failed)?]).map_err(failed)?;
    let (_, values) = outputs["y"].try_extract_tensor::<f32>().map_err(failed)?;
    #[allow(clippy::float_cmp)] // small whole numbers, moved and not changed
    Ok(values.iter().zip(given[1..].iter().chain(&[0.0])).all(|(value, expected)| value == expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::DeviceChoice;

    #[test]
    fn a_processor_has_blocks_of_one_size_at_most() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let sizes: Vec<_> = [8, 16].into_iter().filter(|size| has_blocks_of(*size, &runtime)).collect();
        assert!(sizes.len() <= 1, "{sizes:?}");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(GraphBuild::of(&runtime).channels_in_a_block(), sizes[0]);
        }
    }
}
