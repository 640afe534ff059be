//! The int8 layer as an operator of ONNX Runtime: `LinearInt8` of the domain `stablehand`.
//!
//! Inputs: x [..., inputs] in float32, and the quantised weight, unsigned bytes [outputs / 16, 64 + 16 · inputs] (see
//! [`Linear::weights`]). Output: [..., outputs] in float32. Graphs may come with a model, so every shape is checked.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{DynValue, TensorElementType, ValueType};

use super::convolution::Threads;
use super::dot::{COLUMNS, Dot};
use super::linear::{Linear, LinearScratch};

pub struct LinearInt8 {
    threads: usize,
    /// What calls leave for the next, one for each call at the same time.
    scratch: Arc<Mutex<Vec<LinearScratch>>>,
}

impl LinearInt8 {
    pub fn new(threads: usize) -> Self {
        Self { threads, scratch: Arc::default() }
    }
}

impl Operator for LinearInt8 {
    type Kernel<'attr> = LinearInt8Kernel;

    fn name(&self) -> &'static str {
        "LinearInt8"
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [
            OperatorInput::required(TensorElementType::Float32),
            OperatorInput::required(TensorElementType::Uint8),
        ]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, _: &KernelContext<'_>) -> ort::Result<LinearInt8Kernel> {
        Ok(LinearInt8Kernel { dot: Dot::best(), threads: self.threads, scratch: Arc::clone(&self.scratch) })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let inputs = context.inputs();
        if let [input @ ValueType::Tensor { .. }, ValueType::Tensor { shape: weight, .. }, ..] = &inputs[..]
            && let Some(blocks) = weight.first().filter(|blocks| **blocks >= 0)
        {
            let mut result = input.clone();
            if let ValueType::Tensor { shape, dimension_symbols, .. } = &mut result
                && let Some(last) = shape.len().checked_sub(1)
                // A size that is neither known nor named cannot be said.
                && shape[..last]
                    .iter()
                    .zip(dimension_symbols.iter())
                    .all(|(size, name)| *size >= 0 || !name.is_empty())
            {
                shape[last] = channels(*blocks);
                context.set_output(0, &result)?;
            }
        }
        Ok(())
    }
}

/// The output channels of so many blocks.
fn channels(blocks: i64) -> i64 {
    i64::try_from(COLUMNS).map_or(i64::MAX, |columns| blocks.saturating_mul(columns))
}

pub struct LinearInt8Kernel {
    dot: Dot,
    threads: usize,
    scratch: Arc<Mutex<Vec<LinearScratch>>>,
}

impl Kernel for LinearInt8Kernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let refused = |reason: &str| ort::Error::new(format!("LinearInt8: {reason}"));
        let needed = |index: usize| context.input(index)?.ok_or_else(|| refused("an input is missing"));
        let (x, weights) = (needed(0)?, needed(1)?);
        let (x, weights): (&DynValue, &DynValue) = (&x, &weights);
        let (shape, input) = x.try_extract_tensor::<f32>()?;
        let (of_weights, weights) = weights.try_extract_tensor::<u8>()?;
        let to_usize = |size: i64| usize::try_from(size).map_err(|_| refused("a size is negative"));
        let (Some((inputs, rows)), &[blocks, _]) = (shape.split_last(), &of_weights[..]) else {
            return Err(refused("it needs rows and weights in blocks"));
        };
        let (inputs, outputs) = (to_usize(*inputs)?, channels(blocks));
        let layer = Linear { inputs, outputs: to_usize(outputs)?, input, weights };
        let shape: Vec<i64> = rows.iter().copied().chain([outputs]).collect();
        let output = context.output(0, shape)?;
        let mut output = output.ok_or_else(|| refused("it has no output"))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        let failure = Cell::new(None);
        let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            if tasks == 1 {
                task(0);
            } else if let Err(error) = context.par_for(tasks, 0, task) {
                failure.set(Some(error));
            }
        };
        let threads = Threads { count: self.threads, run: &run };
        let done = layer.run(self.dot, output, &mut scratch, &threads);
        pool().push(scratch);
        done.map_err(refused)?;
        failure.take().map_or(Ok(()), Err)
    }
}
