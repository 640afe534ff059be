//! The int8 layer as an operator of ONNX Runtime: `LinearInt8` of the domain `stablehand`.
//!
//! Inputs: x [..., inputs] in float32, and the quantised weight, unsigned bytes [outputs / 16, 64 + 16 · inputs] (see
//! [`Linear::weights`]). Output: [..., outputs] in float32. Graphs may come with a model, so every shape is checked.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueType};

use super::call::{Call, Pool, like_first_input};
use crate::kernels::dot::{COLUMNS, Dot};
use crate::kernels::linear::{Linear, LinearScratch};

const NAME: &str = "LinearInt8";

pub struct LinearInt8 {
    pub threads: usize,
    pub scratch: Pool<LinearScratch>,
}

impl Operator for LinearInt8 {
    type Kernel<'attr> = LinearInt8Kernel;

    fn name(&self) -> &'static str {
        NAME
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
        Ok(LinearInt8Kernel { dot: Dot::best(), threads: self.threads, scratch: self.scratch.clone() })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let weight = context.inputs().into_iter().nth(1);
        like_first_input(context, |sizes| match weight {
            Some(ValueType::Tensor { shape, .. }) => {
                let blocks = shape.first().filter(|blocks| **blocks >= 0)?;
                *sizes.last_mut()? = channels(*blocks);
                Some(())
            }
            _ => None,
        })
    }
}

/// The output channels of so many blocks.
fn channels(blocks: i64) -> i64 {
    i64::try_from(COLUMNS).map_or(i64::MAX, |columns| blocks.saturating_mul(columns))
}

pub struct LinearInt8Kernel {
    dot: Dot,
    threads: usize,
    scratch: Pool<LinearScratch>,
}

impl Kernel for LinearInt8Kernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let ((shape, input), (of_weights, weights)) = (call.input::<f32>(0)?, call.input::<u8>(1)?);
        let (Some((inputs, rows)), &[blocks, _]) = (shape.split_last(), of_weights) else {
            return Err(call.refused("it needs rows and weights in blocks"));
        };
        let (inputs, outputs) = (call.size(*inputs)?, channels(blocks));
        let layer = Linear { inputs, outputs: call.size(outputs)?, input, weights };
        let shape = rows.iter().copied().chain([outputs]).collect();
        let dot = self.dot;
        self.scratch.lend(|scratch| {
            call.write(shape, self.threads, |output, threads| layer.run(dot, output, scratch, threads))
        })
    }
}
