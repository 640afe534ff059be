//! The convolution as an operator of ONNX Runtime: `Conv3x3` of the domain `stablehand`.
//!
//! Inputs: x [batch, c, h, w]; the weight [o, c, 3, 3], whose values lie in the order [o / 16][c][9][16]; the bias [o]; and,
//! each optional, a shift [batch, o] and an image [batch, o, h, w] to add. Output: [batch, o, h, w]. All are float32.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueType};

use super::call::{Call, Pool, like_first_input};
use crate::kernels::convolution::{Convolution, Scratch, Side};
use crate::kernels::level::Level;
use crate::kernels::tiles::Images;

const NAME: &str = "Conv3x3";

pub struct Conv3x3 {
    pub threads: usize,
    pub level: Level,
    pub scratch: Pool<Scratch>,
}

impl Operator for Conv3x3 {
    type Kernel<'attr> = Conv3x3Kernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        let required = || OperatorInput::required(TensorElementType::Float32);
        let optional = || OperatorInput::optional(TensorElementType::Float32);
        [required(), required(), required(), optional(), optional()]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, _: &KernelContext<'_>) -> ort::Result<Conv3x3Kernel> {
        Ok(Conv3x3Kernel { level: self.level, threads: self.threads, scratch: self.scratch.clone() })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        let weight = context.inputs().into_iter().nth(1);
        like_first_input(context, |sizes| match (sizes, weight) {
            ([_, channels, _, _], Some(ValueType::Tensor { shape, .. })) => {
                *channels = *shape.first().filter(|outputs| **outputs >= 0)?;
                Some(())
            }
            _ => None,
        })
    }
}

pub struct Conv3x3Kernel {
    level: Level,
    threads: usize,
    scratch: Pool<Scratch>,
}

impl Kernel for Conv3x3Kernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let ((x_shape, x), (w_shape, weights), (_, bias)) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (&[batch, inputs, height, width], &[outputs, of_weights, 3, 3]) = (x_shape, w_shape) else {
            return Err(call.refused("it needs an image and 3×3 weights"));
        };
        if inputs != of_weights {
            return Err(call.refused("the weights are for other channels"));
        }
        let results = vec![batch, outputs, height, width];
        if call.optional::<f32>(4)?.is_some_and(|(shape, _)| shape != results) {
            return Err(call.refused("the image to add has another shape"));
        }
        let convolution = Convolution {
            images: Images { batch: call.size(batch)?, height: call.size(height)?, width: call.size(width)? },
            inputs: call.size(inputs)?,
            outputs: call.size(outputs)?,
            input: x,
            weights,
            bias,
            shift: call.optional(3)?.map(|(_, shift)| shift),
            image: call.optional(4)?.map(|(_, image)| image),
        };
        let (level, side) = (self.level, Side::fastest(convolution.images));
        self.scratch.lend(|scratch| {
            call.write(results, self.threads, |output, threads| {
                convolution.run(level, side, output, scratch, threads)
            })
        })
    }
}
