//! The linear layer in float32 as an operator of ONNX Runtime: `Linear` of the domain `stablehand`.
//!
//! The weight is [outputs, inputs], with its values in the order [outputs / 16][inputs][16]. The other inputs and the attributes
//! are those of [`layer`].

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::call::{Call, Pool};
use super::layer::{self, Attributes};
use crate::kernels::level::Level;
use crate::kernels::linear::{Linear, Scratch};

const NAME: &str = "Linear";

pub struct LinearOperator {
    pub threads: usize,
    pub level: Level,
    pub scratch: Pool<Scratch>,
}

impl Operator for LinearOperator {
    type Kernel<'attr> = LinearKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        layer::inputs(TensorElementType::Float32)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<LinearKernel> {
        let attributes = Attributes::of(context, NAME)?;
        Ok(LinearKernel {
            attributes,
            level: self.level,
            threads: self.threads,
            scratch: self.scratch.clone(),
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        layer::infer_shape(context, |outputs| outputs)
    }
}

pub struct LinearKernel {
    attributes: Attributes,
    level: Level,
    threads: usize,
    scratch: Pool<Scratch>,
}

impl Kernel for LinearKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let (of_weights, weights) = call.input::<f32>(1)?;
        let &[outputs, inputs] = of_weights else { return Err(call.refused("it needs a weight for rows")) };
        let (shape, layer) = self.attributes.layer(&call, outputs)?;
        if call.size(inputs)? != layer.inputs {
            return Err(call.refused("the weight is for other rows"));
        }
        let (level, linear) = (self.level, Linear { layer, weights });
        self.scratch.lend(|scratch| {
            call.write(shape, self.threads, |output, threads| linear.run(level, output, scratch, threads))
        })
    }
}
