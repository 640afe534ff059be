//! Attention as an operator of ONNX Runtime: `Attention` of the domain `stablehand`.
//!
//! Inputs: q [batch, n, channels], k [batch, m, channels] and v [batch, m, channels], in float32. Output: in the shape of q.
//! Attribute: `heads`, which have equal parts of the channels. Scores are divided by the root of a head's channels.

use ort::operator::ShapeInferenceContext;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType;

use super::call::{Call, Pool, count, like_first_input};
use crate::kernels::attention::{Attention, Scratch};
use crate::kernels::level::Level;

const NAME: &str = "Attention";

pub struct AttentionOperator {
    pub threads: usize,
    pub level: Level,
    pub scratch: Pool<Scratch>,
}

impl Operator for AttentionOperator {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &'static str {
        NAME
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [(); 3].map(|()| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel(&self, context: &KernelContext<'_>) -> ort::Result<AttentionKernel> {
        Ok(AttentionKernel {
            threads: self.threads,
            level: self.level,
            heads: count(context, NAME, "heads")?,
            scratch: self.scratch.clone(),
        })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        like_first_input(context, |_| Some(()))
    }
}

pub struct AttentionKernel {
    threads: usize,
    level: Level,
    heads: usize,
    scratch: Pool<Scratch>,
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let call = Call::of(NAME, context)?;
        let ((shape, q), (k_shape, k), (v_shape, v)) = (call.input(0)?, call.input(1)?, call.input(2)?);
        let (&[batch, queries, channels], &[of_keys, keys, channels_of_keys]) = (shape, k_shape) else {
            return Err(call.refused("it needs rows of channels"));
        };
        if (of_keys, channels_of_keys) != (batch, channels) {
            return Err(call.refused("the keys are for other queries"));
        }
        if v_shape != k_shape {
            return Err(call.refused("the values are for other keys"));
        }
        let attention = Attention {
            batch: call.size(batch)?,
            heads: self.heads,
            channels: call.size(channels)?,
            queries: call.size(queries)?,
            keys: call.size(keys)?,
            q,
            k,
            v,
        };
        let (level, threads) = (self.level, self.threads);
        self.scratch.lend(|scratch| {
            call.write(shape.to_vec(), threads, |output, threads| {
                attention.run(level, output, scratch, threads)
            })
        })
    }
}
