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
    operators_at(threads, Level::best())
}

/// The same with the instructions of one level, for measurements. This processor must have them.
pub fn operators_at(threads: usize, level: Level) -> ort::Result<OperatorDomain> {
    if !Level::all().contains(&level) {
        return Err(ort::Error::new(format!("this processor has no {level:?}")));
    }
    let threads = threads.max(1);
    OperatorDomain::new(DOMAIN)?
        .add(Conv3x3 { threads, level, scratch: Arc::default() })?
        .add(LinearInt8::new(threads))
}

struct Conv3x3 {
    threads: usize,
    level: Level,
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
        Ok(Conv3x3Kernel { level: self.level, threads: self.threads, scratch: Arc::clone(&self.scratch) })
    }

    fn infer_shape(&self, context: &mut ShapeInferenceContext) -> ort::Result<()> {
        // With shapes, ONNX Runtime plans its memory better. A size that is neither known nor named cannot be said.
        let inputs = context.inputs();
        if let [image @ ValueType::Tensor { .. }, ValueType::Tensor { shape: weight, .. }, ..] = &inputs[..]
            && let Some(outputs) = weight.first().filter(|outputs| **outputs >= 0)
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

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};
    use ort::session::{Session, SessionInputValue};
    use ort::value::Tensor;

    use super::*;
    use crate::runtime::{DeviceChoice, GraphSource, Runtime};

    /// A field of ONNX's protobuf with some bytes, of which there are few.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// A graph of one `Conv3x3` whose inputs have no shapes.
    fn graph(inputs: &[&str]) -> Vec<u8> {
        let named = |number: u8, name: &str| field(number, name.as_bytes());
        let float = [8, 1];
        let value = |name: &str| [named(1, name), field(2, &field(1, &float))].concat();
        let mut node: Vec<u8> = inputs.iter().flat_map(|name| named(1, name)).collect();
        node.extend([named(2, "y"), named(4, "Conv3x3"), named(7, DOMAIN)].concat());
        let mut graph = [field(1, &node), named(2, "graph")].concat();
        for name in inputs {
            graph.extend(field(11, &value(name)));
        }
        graph.extend(field(12, &value("y")));
        let version = |number: u8| vec![16, number];
        let ours = [named(1, DOMAIN), version(1)].concat();
        [vec![8, 9], field(7, &graph), field(8, &version(21)), field(8, &ours)].concat()
    }

    const INPUTS: [&str; 5] = ["x", "w", "b", "s", "i"];

    fn session(inputs: usize) -> Session {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let builder = Session::builder(runtime.environment()).unwrap();
        let mut builder = builder.with_operators(operators(2).unwrap()).unwrap();
        builder.commit_from_memory(&graph(&INPUTS[..inputs])).unwrap()
    }

    /// What comes out for tensors of ones in these shapes: the shape, and the values.
    fn run(session: &mut Session, shapes: &[&[usize]]) -> ort::Result<(Vec<i64>, Vec<f32>)> {
        let inputs: Vec<(&str, SessionInputValue<'_>)> = INPUTS
            .into_iter()
            .zip(shapes)
            .map(|(name, shape)| {
                let ones = Tensor::from_array(ArrayD::<f32>::ones(IxDyn(shape))).unwrap();
                (name, ones.into())
            })
            .collect();
        let outputs = session.run(inputs)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
        Ok((shape.to_vec(), values.to_vec()))
    }

    #[test]
    fn it_adds_the_bias_the_shift_and_the_image() {
        let shapes: [&[usize]; 5] = [&[2, 16, 3, 3], &[32, 16, 3, 3], &[32], &[2, 32], &[2, 32, 3, 3]];
        for (count, more) in [(3, 1.0), (4, 2.0), (5, 3.0)] {
            let (shape, values) = run(&mut session(count), &shapes[..count]).unwrap();
            assert_eq!(shape, [2, 32, 3, 3]);
            // Sixteen channels of four, six or nine neighbours.
            let corner = 16.0 * 4.0 + more;
            let edge = 16.0 * 6.0 + more;
            let expected = [corner, edge, corner, edge, 16.0 * 9.0 + more, edge, corner, edge, corner];
            for (value, expected) in values.iter().zip(expected.iter().cycle()) {
                assert!((value - expected).abs() < 1e-3, "{count} inputs: {value} in place of {expected}");
            }
        }
    }

    #[test]
    fn tensors_of_wrong_shapes_are_refused() {
        let mut session = session(5);
        let right: [&[usize]; 5] = [&[2, 16, 4, 5], &[32, 16, 3, 3], &[32], &[2, 32], &[2, 32, 4, 5]];
        run(&mut session, &right).unwrap();
        for (input, shape, reason) in [
            (0, &[16, 4, 5][..], "needs an image"),
            (0, &[], "needs an image"),
            (0, &[1, 2, 16, 4, 5], "needs an image"),
            (0, &[2, 32, 4, 5], "other channels"),
            (0, &[2, 8, 4, 5], "other channels"),
            (0, &[3, 16, 4, 5], "another size"),
            (0, &[2, 16, 5, 5], "image to add"),
            (1, &[32, 16, 9], "needs an image"),
            (1, &[32, 16, 5, 5], "3×3 weights"),
            (1, &[32, 16, 3, 1], "3×3 weights"),
            (1, &[32], "3×3 weights"),
            (1, &[], "3×3 weights"),
            (1, &[31, 16, 3, 3], "multiples of 16"),
            (1, &[48, 16, 3, 3], "another size"),
            (2, &[16], "bias"),
            (2, &[0], "bias"),
            (2, &[], "bias"),
            (3, &[2, 31], "shift"),
            (3, &[0, 32], "shift"),
            (4, &[2, 32, 4], "image to add"),
            (4, &[2, 32, 0, 5], "image to add"),
        ] {
            let mut shapes = right;
            shapes[input] = shape;
            let error = run(&mut session, &shapes).unwrap_err().to_string();
            assert!(error.contains(reason), "{} {shape:?}: {error}", INPUTS[input]);
        }
    }

    #[test]
    fn empty_images_are_empty_results_and_no_channels_are_refused() {
        let mut session = session(3);
        for image in [&[0, 16, 4, 5][..], &[2, 16, 0, 5], &[2, 16, 4, 0]] {
            let (shape, values) = run(&mut session, &[image, &[32, 16, 3, 3], &[32]]).unwrap();
            assert_eq!((shape[1], values.len()), (32, 0), "{image:?}");
        }
        let (_, none) = run(&mut session, &[&[2, 16, 4, 5], &[0, 16, 3, 3], &[0]]).unwrap();
        assert!(none.is_empty());
        // Nothing would be summed up: what an earlier call left in memory must not come out.
        let error = run(&mut session, &[&[2, 0, 4, 5], &[32, 0, 3, 3], &[32]]).unwrap_err();
        assert!(error.to_string().contains("no input channels"), "{error}");
    }

    #[test]
    fn graphs_of_a_models_own_have_no_such_operator() {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let error = runtime.session(GraphSource::Memory(&graph(&INPUTS[..3]))).unwrap_err().to_string();
        assert!(error.contains("Conv3x3") || error.contains(DOMAIN), "{error}");
    }
}
