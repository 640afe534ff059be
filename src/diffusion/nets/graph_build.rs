//! Chooses the build of our graphs for a device and its processor.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use ndarray::Array4;
use ort::session::Session;
use ort::value::Tensor;

use super::ModelError;
use crate::diffusion::files::{GraphBuild, LOCATION, WeightlessGraph, Weights};
use crate::runtime::{
    self, CpuSettings, CpuSpeed, Device, GraphSource, Remembered, Runtime, RuntimeError, take_cores,
};

/// One convolution in blocks, of 16 channels.
static PROBE: &[u8] = include_bytes!("../../../models/graphs/probe.nchwc.onnx");
/// One 3×3 convolution of 320 channels, in blocks and by our own operator.
static SPEED: [&[u8]; 2] = [
    include_bytes!("../../../models/graphs/probe.speed.nchwc.onnx"),
    include_bytes!("../../../models/graphs/probe.speed.winograd.onnx"),
];

/// What is timed: the channels of Stable Diffusion v1's first level in two rows, as a guided picture has. Of fewer channels,
/// less time goes into what our own operator saves.
const IMAGE: (usize, usize, usize, usize) = (2, 320, 32, 32);
/// Our operator must be at least so much faster: where it is about as fast, it is not worth another build.
const MARGIN: f64 = 1.15;
const TRIALS: usize = 5;
/// The name of the question which convolutions are faster, and its answers.
const QUESTION: &str = "convolutions";
const OURS: &str = "winograd";
const BLOCKS: &str = "blocks";

/// The build for this runtime. It is the same at every start, so that a seed draws the same picture, and a saved job goes
/// on.
pub fn best_build(runtime: &Runtime) -> GraphBuild {
    static BLOCK: OnceLock<Option<usize>> = OnceLock::new();
    if !runtime.device().is_cpu() {
        return GraphBuild::Cuda;
    }
    let Some(channels_in_a_block) = *BLOCK.get_or_init(|| blocks(runtime)) else { return GraphBuild::Cpu };
    let is_winograd = match runtime.cpu().speed {
        CpuSpeed::Fast => true,
        CpuSpeed::Memory => false,
        CpuSpeed::Auto => winograd_pays(channels_in_a_block, runtime),
    };
    match is_winograd {
        true => GraphBuild::Winograd { channels_in_a_block },
        false => GraphBuild::Nchwc { channels_in_a_block },
    }
}

/// The channels in a block of this processor's convolutions, if it has such.
fn blocks(runtime: &Runtime) -> Option<usize> {
    [16, 8].into_iter().find(|block| has_blocks_of(*block, runtime))
}

/// Whether our own operator is clearly faster than convolutions in blocks. It is found out once a process, and timed once
/// for each processor.
fn winograd_pays(channels_in_a_block: usize, runtime: &Runtime) -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| {
        // With all cores, whatever this session has: the answer is for all.
        let runtime = runtime.clone().with_cpu(CpuSettings::default());
        is_faster(channels_in_a_block, &runtime, &Remembered::new(QUESTION, &runtime))
    })
}

fn is_faster(channels_in_a_block: usize, runtime: &Runtime, remembered: &Remembered) -> bool {
    let known = remembered.recall();
    if let Some(known @ (OURS | BLOCKS)) = known.as_deref().and_then(|answer| answer.split(' ').next()) {
        return known == OURS;
    }
    let [blocks, winograd] = match time_both(channels_in_a_block, runtime) {
        Ok(times) => times.map(|time| time.as_secs_f64()),
        Err(error) => {
            tracing::debug!(%error, "our own convolutions do not run");
            return false;
        }
    };
    tracing::debug!(blocks, winograd, "seconds of a convolution in blocks, and by Winograd's algorithm");
    let is_faster = winograd * MARGIN < blocks;
    let answer = if is_faster { OURS } else { BLOCKS };
    let times = [blocks, winograd].map(|seconds| seconds * 1e3);
    remembered.keep(&format!("{answer} ({:.2} ms in blocks, {:.2} ms by Winograd)", times[0], times[1]));
    is_faster
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
    // Other workers wait, so that they disturb none of the two.
    let _turn = take_cores(runtime.threads());
    let mut shortest = [Duration::MAX; 2];
    for trial in 0..=TRIALS {
        for (session, shortest) in opened.iter_mut().zip(&mut shortest) {
            let x = Tensor::from_array(Array4::<f32>::ones(IMAGE)).map_err(failed)?;
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
    use std::num::NonZero;

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

    #[test]
    fn the_settings_choose_the_build_and_the_probe_chooses_once() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let Some(channels_in_a_block) = blocks(&runtime) else { return };
        let build = |speed, threads: usize| {
            let cpu = CpuSettings { speed, threads: NonZero::new(threads) };
            best_build(&runtime.clone().with_cpu(cpu))
        };
        assert_eq!(build(CpuSpeed::Fast, 1), GraphBuild::Winograd { channels_in_a_block });
        assert_eq!(build(CpuSpeed::Memory, 1), GraphBuild::Nchwc { channels_in_a_block });
        let auto = build(CpuSpeed::Auto, 1);
        assert!((2..5).all(|threads| build(CpuSpeed::Auto, threads) == auto));
    }

    #[test]
    fn what_was_timed_once_decides_from_then_on() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let Some(block) = blocks(&runtime) else { return };
        let cache = tempfile::tempdir().unwrap();
        let remembered = Remembered::in_folder(cache.path(), QUESTION, "1.0", "a processor");
        let timed = is_faster(block, &runtime, &remembered);
        let answer = remembered.recall().unwrap();
        assert!(answer.starts_with(if timed { "winograd (" } else { "blocks (" }), "{answer}");
        for (answer, expected) in [("winograd (by hand)", true), ("blocks", false)] {
            remembered.keep(answer);
            assert_eq!(is_faster(block, &runtime, &remembered), expected, "{answer}");
        }
        remembered.keep("something else");
        is_faster(block, &runtime, &remembered);
        assert!(remembered.recall().unwrap().contains(" ms in blocks, "), "it is timed once more");
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
