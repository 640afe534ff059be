//! Group norm as an operator of ONNX Runtime: `GroupNorm` of the domain `stablehand`.
//!
//! Inputs: x [batch, c, ...], the weight [c] and the bias [c], in float32. Output: in the shape of x. Attributes: `groups`,
//! `epsilon`, and `silu`, which is 1 if `SiLU` follows.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::call::{Call, count, flag, like_first_input, missing};
use crate::kernels::group_norm::GroupNorm;
use crate::kernels::level::Level;

const NAME: &str = "GroupNorm";

pub struct GroupNormOperator {
    pub threads: usize,
    pub level: Level,
}

impl Operator for GroupNormOperator {
    type Kernel<'attr> = GroupNormKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [(); 3].map(|()| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<GroupNormKernel> {
        Ok(GroupNormKernel {
            threads: self.threads,
            level: self.level,
            groups: count(context, NAME, "groups")?,
            epsilon: context.get("epsilon").ok_or_else(|| missing(NAME, "epsilon"))?,
            silu: flag(context, NAME, "silu")?,
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        like_first_input(context, |_| Some(()))
    }
}

pub struct GroupNormKernel {
    threads: usize,
    level: Level,
    groups: usize,
    epsilon: f32,
    silu: bool,
}

impl Kernel for GroupNormKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let ((shape, input), (_, weight), (_, bias)) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let [_, channels, of_channel @ ..] = shape else {
            return Err(call.refused("it needs images"));
        };
        let channels = call.size(*channels)?;
        let pixels = of_channel.iter().try_fold(1, |pixels: usize, size| {
            pixels.checked_mul(call.size(*size)?).ok_or_else(|| call.refused("an image is too large"))
        })?;
        let &mut Self { threads, level, groups, epsilon, silu } = self;
        let norm = GroupNorm { groups, channels, epsilon, silu, input, weight, bias };
        call.write(shape.to_vec(), threads, |output, threads| norm.run(level, pixels, output, threads))
    }
}
