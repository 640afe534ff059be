//! Chooses the build of our graphs for a device and its processor.

use std::borrow::Cow;
use std::sync::OnceLock;

use ndarray::Array4;
use ort::value::Tensor;

use super::ModelError;
use crate::diffusion::files::{GraphBuild, LOCATION, WeightlessGraph};
use crate::runtime::{self, Device, GraphSource, Runtime, RuntimeError};

/// One convolution in blocks, of 16 channels.
static PROBE: &[u8] = include_bytes!("../../../models/graphs/probe.nchwc.onnx");

/// The best build for this runtime. The processor is probed once.
pub fn best_build(runtime: &Runtime) -> GraphBuild {
    static BLOCK: OnceLock<Option<usize>> = OnceLock::new();
    if !runtime.device().is_cpu() {
        return GraphBuild::Cuda;
    }
    match *BLOCK.get_or_init(|| [16, 8].into_iter().find(|block| has_blocks_of(*block, runtime))) {
        Some(channels_in_a_block) => GraphBuild::Nchwc { channels_in_a_block },
        None => GraphBuild::Cpu,
    }
}

/// A build with the same weights, for callers that only look at it and have no runtime.
pub fn plain_build(device: &Device) -> GraphBuild {
    if device.is_cpu() { GraphBuild::Cpu } else { GraphBuild::Cuda }
}

/// Whether this processor's convolutions use blocks of this size. With another size the sums are wrong.
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
    #[expect(clippy::float_cmp, reason = "small whole numbers, moved and not changed")]
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
            assert_eq!(best_build(&runtime).channels_in_a_block(), sizes[0]);
        }
    }
}
