//! What the operators of linear layers have in common: the inputs and attributes beside the weights, and the shape of results.
//!
//! Inputs: x [..., inputs]; the weight; and, each optional, the bias [outputs], a value to add in the shape of the results, and
//! the weight and bias [inputs] of a layer norm of x. Output: [..., outputs], or half as many where it is gated. All are in
//! float32, but for the weight. Attributes: `gated`, 0 without; and the norm's `epsilon`.

use ort::operator::{KernelContext, OperatorInput, ShapeInferenceContext};
use ort::value::{TensorElementType, ValueType};

use super::call::{Call, flag, like_first_input, missing};
use crate::kernels::layer::{Layer, Norm};

const EPSILON: &str = "epsilon";
const GATED: &str = "gated";

/// The attributes.
#[derive(Clone, Copy)]
pub struct Attributes {
    is_gated: bool,
    epsilon: Option<f32>,
}

impl Attributes {
    pub fn of(context: &KernelContext<'_>, operator: &str) -> ort::Result<Self> {
        Ok(Self { is_gated: flag(context, operator, GATED)?, epsilon: context.get(EPSILON) })
    }

    /// The layer of a call, whose weights have so many outputs.
    pub fn layer<'a>(&self, call: &'a Call<'_>, outputs: i64) -> ort::Result<(Vec<i64>, Layer<'a>)> {
        let (shape, input) = call.input(0)?;
        let Some((inputs, rows)) = shape.split_last() else {
            return Err(call.refused("it needs rows"));
        };
        let values = |index| Ok::<_, ort::Error>(call.optional::<f32>(index)?.map(|(_, values)| values));
        let norm = match (values(4)?, values(5)?) {
            (Some(weight), Some(bias)) => {
                let epsilon = self.epsilon.ok_or_else(|| missing(call.operator(), EPSILON))?;
                Some(Norm { weight, bias, epsilon })
            }
            (None, None) => None,
            _ => return Err(call.refused("its norm has no weight or no bias")),
        };
        let width = if self.is_gated { outputs / 2 } else { outputs };
        let results: Vec<_> = rows.iter().copied().chain([width]).collect();
        if call.optional::<f32>(3)?.is_some_and(|(shape, _)| shape != results) {
            return Err(call.refused("what is added has another shape"));
        }
        let layer = Layer {
            inputs: call.size(*inputs)?,
            outputs: call.size(outputs)?,
            input,
            norm,
            bias: values(2)?,
            plus: values(3)?,
            is_gated: self.is_gated,
        };
        Ok((results, layer))
    }
}

pub fn inputs(weight: TensorElementType) -> [OperatorInput; 6] {
    let optional = || OperatorInput::optional(TensorElementType::Float32);
    let x = OperatorInput::required(TensorElementType::Float32);
    [x, OperatorInput::required(weight), optional(), optional(), optional(), optional()]
}

/// `outputs` tells how many outputs a weight has whose first size this is.
pub fn infer_shape(context: &mut ShapeInferenceContext, outputs: impl FnOnce(i64) -> i64) -> ort::Result<()> {
    let weight = context.inputs().into_iter().nth(1);
    let is_gated = context.attr::<i64>(GATED).is_ok_and(|gated| gated == 1);
    like_first_input(context, |sizes| match weight {
        Some(ValueType::Tensor { shape, .. }) => {
            let outputs = outputs(*shape.first().filter(|size| **size >= 0)?);
            *sizes.last_mut()? = if is_gated { outputs / 2 } else { outputs };
            Some(())
        }
        _ => None,
    })
}
