//! GEGLU as an operator of ONNX Runtime: `GeGlu` of the domain `stablehand`.
//!
//! Inputs: x [..., 2 · n] and the bias [2 · n], in float32. Output: [..., n].

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::call::{Call, like_first_input};
use crate::kernels::geglu::GeGlu;
use crate::kernels::level::Level;

const NAME: &str = "GeGlu";

#[derive(Clone, Copy)]
pub struct GeGluOperator {
    pub threads: usize,
    pub level: Level,
}

impl Operator for GeGluOperator {
    type Kernel<'attr> = Self;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [(); 2].map(|()| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, _: &KernelContext<'_>) -> ort::Result<Self> {
        Ok(*self)
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        like_first_input(context, |sizes| {
            let last = sizes.last_mut().filter(|last| **last >= 0)?;
            *last /= 2;
            Some(())
        })
    }
}

impl Kernel for GeGluOperator {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let ((shape, input), (_, bias)) = (call.input(0)?, call.input(1)?);
        let Some((last, rows)) = shape.split_last().filter(|(last, _)| *last % 2 == 0) else {
            return Err(call.refused("it needs rows of two halves"));
        };
        let shape = rows.iter().copied().chain([last / 2]).collect();
        let geglu = GeGlu { width: call.size(last / 2)?, input, bias };
        let Self { threads, level } = *self;
        call.write(shape, threads, |output, threads| geglu.run(level, output, threads))
    }
}
