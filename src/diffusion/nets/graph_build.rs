//! Chooses the build of our graphs for a device and its processor.

use std::borrow::Cow;
use std::env;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ndarray::Array4;
use ort::session::Session;
use ort::value::Tensor;

use super::ModelError;
use crate::diffusion::files::{GraphBuild, LOCATION, WeightlessGraph, Weights};
use crate::runtime::{self, Device, GraphSource, Runtime, RuntimeError};

/// One convolution in blocks, of 16 channels.
static PROBE: &[u8] = include_bytes!("../../../models/graphs/probe.nchwc.onnx");
/// One 3×3 convolution of 64 channels, in blocks and by our own operator.
static SPEED: [&[u8]; 2] = [
    include_bytes!("../../../models/graphs/probe.speed.nchwc.onnx"),
    include_bytes!("../../../models/graphs/probe.speed.winograd.onnx"),
];

/// Names the convolutions in place of the probe: `blocks` are ONNX Runtime's, `winograd` our own.
const VARIABLE: &str = "STABLEHAND_CONVOLUTIONS";
/// Our operator must be at least so much faster. Where it is about as fast, the choice would be another at every start.
const MARGIN: f64 = 1.15;
const TRIALS: usize = 5;

/// The best build for this runtime. The processor is probed once.
pub fn best_build(runtime: &Runtime) -> GraphBuild {
    static BUILD: OnceLock<GraphBuild> = OnceLock::new();
    if !runtime.device().is_cpu() {
        return GraphBuild::Cuda;
    }
    *BUILD.get_or_init(|| {
        let Some(channels_in_a_block) = blocks(runtime) else { return GraphBuild::Cpu };
        let is_winograd = match env::var(VARIABLE).as_deref() {
            Ok("winograd") => true,
            Ok("auto") => is_faster(channels_in_a_block, runtime),
            // Not measured widely enough to be the default.
            Ok("" | "blocks") | Err(_) => false,
            Ok(other) => {
                tracing::warn!("{VARIABLE} should be auto, blocks or winograd: '{other}' is ignored");
                false
            }
        };
        match is_winograd {
            true => GraphBuild::Winograd { channels_in_a_block },
            false => GraphBuild::Nchwc { channels_in_a_block },
        }
    })
}

/// The channels in a block of this processor's convolutions, if it has such.
fn blocks(runtime: &Runtime) -> Option<usize> {
    [16, 8].into_iter().find(|block| has_blocks_of(*block, runtime))
}

/// Whether our own operator is clearly faster than convolutions in blocks.
fn is_faster(channels_in_a_block: usize, runtime: &Runtime) -> bool {
    let times = time_both(channels_in_a_block, runtime);
    tracing::debug!(?times, "a convolution in blocks, and by Winograd's algorithm");
    times.is_ok_and(|[blocks, winograd]| winograd.as_secs_f64() * MARGIN < blocks.as_secs_f64())
}

/// The shortest times that the two take.
fn time_both(channels_in_a_block: usize, runtime: &Runtime) -> Result<[Duration; 2], ModelError> {
    let mut weights = Vec::new();
    let mut opened = Vec::new();
    for onnx in SPEED {
        let graph = WeightlessGraph::read(Cow::Borrowed(onnx), channels_in_a_block)?;
        let zeros = graph.allocate();
        opened.push(open(&graph, &zeros, runtime)?);
        weights.push(zeros);
    }
    let mut shortest = [Duration::MAX; 2];
    for trial in 0..=TRIALS {
        for (session, shortest) in opened.iter_mut().zip(&mut shortest) {
            let x = Tensor::from_array(Array4::<f32>::zeros((1, 64, 32, 32))).map_err(failed)?;
            let started = Instant::now();
            session.run(ort::inputs!["x" => x]).map_err(failed)?;
            *shortest = started.elapsed().min(*shortest);
        }
        // Without the compiler's optimisation our own is slower by far.
        if shortest[0] * 8 < shortest[1] {
            break;
        }
        if trial == 0 {
            // The first run is for the memory.
            shortest = [Duration::MAX; 2];
        }
    }
    Ok(shortest)
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn failed(error: ort::Error) -> ModelError {
    ModelError::Runtime(RuntimeError::Graph(runtime::reason(&error)))
}

/// A session that reads `weights`, which the caller keeps.
fn open(graph: &WeightlessGraph, weights: &Weights, runtime: &Runtime) -> Result<Session, ModelError> {
    let files = [(LOCATION, weights.buffer())];
    Ok(runtime.session(GraphSource::Weightless { onnx: graph.onnx(), files: &files })?)
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
    let graph = WeightlessGraph::read(Cow::Borrowed(PROBE), channels)?;
    let mut weights = graph.allocate();
    // Each channel of the result is the next one of the input.
    let shift: Vec<f32> = (0..256).map(|index| f32::from(u8::from(index % 16 == index / 16 + 1))).collect();
    for (_, mut writer) in weights.writers().into_iter().filter(|(name, _)| *name == "probe.weight") {
        writer.write(&shift);
    }
    let mut session = open(&graph, &weights, runtime)?;
    let given: Vec<f32> = (0..16_u8).map(f32::from).collect();
    let x = Array4::from_shape_vec((1, 16, 1, 1), given.clone()).unwrap_or_default();
    let outputs = session.run(ort::inputs!["x" => Tensor::from_array(x).map_err(failed)?]).map_err(failed)?;
    let (_, values) = outputs["y"].try_extract_tensor::<f32>().map_err(failed)?;
    #[expect(clippy::float_cmp, reason = "small whole numbers, moved and not changed")]
    Ok(values.iter().zip(given[1..].iter().chain(&[0.0])).all(|(value, expected)| value == expected))
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};
    use ort::value::DynTensor;

    use super::*;
    use crate::diffusion::files::{ModelFiles, PartGraph};
    use crate::domain::ModelPart;
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

    /// A tensor of this shape, of numbers from −1 to 1.
    fn wave(shape: &[usize], step: f32) -> DynTensor {
        let count = u16::try_from(shape.iter().product::<usize>()).unwrap();
        let values = (0..count).map(|index| (f32::from(index) * step).sin()).collect();
        Tensor::from_array(ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()).unwrap().upcast()
    }

    #[test]
    fn our_convolutions_give_what_those_in_blocks_give_at_every_size() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let Some(channels_in_a_block) = blocks(&runtime) else { return };
        let (files, _) = ModelFiles::open(None).unwrap();
        let builds =
            [GraphBuild::Nchwc { channels_in_a_block }, GraphBuild::Winograd { channels_in_a_block }];
        for part in [ModelPart::UNet, ModelPart::VaeDecoder, ModelPart::VaeEncoder] {
            let files = files.part(part).unwrap();
            let mut both = builds.map(|build| {
                let PartGraph::Weightless(graph) = files.graph(build).unwrap() else { panic!("our graph") };
                let weights = files.weights(&graph).unwrap().unwrap();
                (open(&graph, &weights, &runtime).unwrap(), weights)
            });
            for (batch, height, width) in [(1, 8, 8), (2, 9, 13), (3, 12, 4), (1, 16, 16)] {
                let mut results = both.each_mut().map(|(session, _)| {
                    let inputs = match part {
                        ModelPart::UNet => ort::inputs![
                            "sample" => wave(&[batch, 4, height, width], 0.37),
                            "timestep" => wave(&[batch], 1.0),
                            "encoder_hidden_states" => wave(&[batch, 77, 160], 0.11),
                        ],
                        ModelPart::VaeDecoder => {
                            ort::inputs!["latent_sample" => wave(&[batch, 4, height, width], 0.37)]
                        }
                        _ => ort::inputs!["sample" => wave(&[batch, 3, 8 * height, 8 * width], 0.37)],
                    };
                    let outputs = session.run(inputs).unwrap();
                    outputs[0].try_extract_array::<f32>().unwrap().into_owned()
                });
                let largest = results[0].iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
                let [blocks, winograd] = &mut results;
                *blocks -= &*winograd;
                let worst = blocks.iter().fold(0.0_f32, |worst, difference| worst.max(difference.abs()));
                assert!(worst < 1e-4 * largest, "{part:?} {batch}×{height}×{width}: {worst:e} of {largest}");
            }
        }
    }
}
