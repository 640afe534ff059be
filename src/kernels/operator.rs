//! The convolution as an operator of ONNX Runtime: `Conv3x3` of the domain `stablehand`.
//!
//! Inputs: x [batch, c, h, w]; the weight [o, c, 3, 3], whose values lie in the order [o / 16][c][9][16]; the bias [o]; and,
//! each optional, a shift [batch, o] and an image [batch, o, h, w] to add. Output: [batch, o, h, w]. All are float32.
//! Graphs may come with a model, so every shape is checked.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};

use ort::operator::ShapeInferenceContext;
use ort::operator::{
    ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput,
};
use ort::value::{DynValue, TensorElementType, ValueRef, ValueType};

use super::convolution::{Convolution, Scratch, Side, Threads};
use super::level::Level;
use super::linear_operator::LinearInt8;
use super::tiles::Images;

const DOMAIN: &str = "stablehand";

/// The operators for a session that works with so many threads.
pub fn operators(threads: usize) -> ort::Result<OperatorDomain> {
    let threads = threads.max(1);
    OperatorDomain::new(DOMAIN)?
        .add(Conv3x3 { threads, scratch: Arc::default() })?
        .add(LinearInt8::new(threads))
}

struct Conv3x3 {
    threads: usize,
    /// What calls leave for the next, one for each call at the same time.
    scratch: Arc<Mutex<Vec<Scratch>>>,
}

impl Operator for Conv3x3 {
    type Kernel<'attr> = Conv3x3Kernel;

    fn name(&self) -> &'static str {
        "Conv3x3"
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
        Ok(Conv3x3Kernel { level: Level::best(), threads: self.threads, scratch: Arc::clone(&self.scratch) })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        // With shapes, ONNX Runtime plans its memory better. A size that is neither known nor named cannot be said.
        let inputs = context.inputs();
        if let [image @ ValueType::Tensor { .. }, ValueType::Tensor { shape: weight, .. }, ..] = &inputs[..]
            && let Some(outputs) = weight.first()
        {
            let mut result = image.clone();
            if let ValueType::Tensor { shape, dimension_symbols, .. } = &mut result
                && shape.len() == 4
                && shape
                    .iter()
                    .zip(dimension_symbols.iter())
                    .all(|(size, name)| *size >= 0 || !name.is_empty())
            {
                shape[1] = *outputs;
                context.set_output(0, &result)?;
            }
        }
        Ok(())
    }
}

struct Conv3x3Kernel {
    level: Level,
    threads: usize,
    scratch: Arc<Mutex<Vec<Scratch>>>,
}

impl Kernel for Conv3x3Kernel {
    fn compute(&mut self, context: &ComputeContext) -> ort::Result<()> {
        let refused = |reason: &str| ort::Error::new(format!("Conv3x3: {reason}"));
        let inputs: Vec<Option<ValueRef<'_>>> =
            (0..context.num_inputs()?).map(|index| context.input(index)).collect::<ort::Result<_>>()?;
        let tensor = |index: usize| -> ort::Result<Option<(&[i64], &[f32])>> {
            let Some(value) = inputs.get(index).and_then(Option::as_ref) else { return Ok(None) };
            let value: &DynValue = value;
            let (shape, values) = value.try_extract_tensor::<f32>()?;
            Ok(Some((shape, values)))
        };
        let needed = |index: usize| tensor(index)?.ok_or_else(|| refused("an input is missing"));
        let ((x_shape, x), (w_shape, weights), (_, bias)) = (needed(0)?, needed(1)?, needed(2)?);
        let (&[batch, inputs, height, width], &[outputs, of_weights, 3, 3]) = (x_shape, w_shape) else {
            return Err(refused("it needs an image and 3×3 weights"));
        };
        if inputs != of_weights {
            return Err(refused("the weights are for other channels"));
        }
        let to_usize = |size: i64| usize::try_from(size).map_err(|_| refused("a size is negative"));
        let convolution = Convolution {
            images: Images { batch: to_usize(batch)?, height: to_usize(height)?, width: to_usize(width)? },
            inputs: to_usize(inputs)?,
            outputs: to_usize(outputs)?,
            input: x,
            weights,
            bias,
            shift: tensor(3)?.map(|(_, shift)| shift),
            image: tensor(4)?.map(|(_, image)| image),
        };
        let output = context.output(0, [batch, outputs, height, width])?;
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
        let done =
            convolution.run(self.level, Side::fastest(convolution.images), output, &mut scratch, &threads);
        pool().push(scratch);
        done.map_err(refused)?;
        failure.take().map_or(Ok(()), Err)
    }
}
