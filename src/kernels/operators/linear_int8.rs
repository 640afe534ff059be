//! The int8 layer as an operator of ONNX Runtime: `LinearInt8` of the domain `stablehand`.
//!
//! The quantised weight is unsigned bytes [outputs / 16, 64 + 16 · inputs] (see [`LinearInt8::weights`]). The other inputs and
//! the attributes are those of [`layer`]. Graphs may come with a model, so every shape is checked.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::call::{Call, Pool};
use super::layer::{self, Attributes};
use crate::kernels::dot::{COLUMNS, Dot};
use crate::kernels::level::Level;
use crate::kernels::linear_int8::{LinearInt8, Scratch};

const NAME: &str = "LinearInt8";

pub struct LinearInt8Operator {
    pub threads: usize,
    pub level: Level,
    pub scratch: Pool<Scratch>,
}

impl Operator for LinearInt8Operator {
    type Kernel<'attr> = LinearInt8Kernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        layer::inputs(TensorElementType::Uint8)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<LinearInt8Kernel> {
        Ok(LinearInt8Kernel {
            attributes: Attributes::of(context, NAME)?,
            with: (Dot::best(), self.level),
            threads: self.threads,
            scratch: self.scratch.clone(),
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        layer::infer_shape(context, channels)
    }
}

/// The output channels of so many blocks.
fn channels(blocks: i64) -> i64 {
    i64::try_from(COLUMNS).map_or(i64::MAX, |columns| blocks.saturating_mul(columns))
}

pub struct LinearInt8Kernel {
    attributes: Attributes,
    with: (Dot, Level),
    threads: usize,
    scratch: Pool<Scratch>,
}

impl Kernel for LinearInt8Kernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let (of_weights, weights) = call.input::<u8>(1)?;
        let &[blocks, _] = of_weights else { return Err(call.refused("it needs weights in blocks")) };
        let (shape, layer) = self.attributes.layer(&call, channels(blocks))?;
        let (with, linear) = (self.with, LinearInt8 { layer, weights });
        self.scratch.lend(|scratch| {
            call.write(shape, self.threads, |output, threads| linear.run(with, output, scratch, threads))
        })
    }
}
