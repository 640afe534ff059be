//! Runs a session's calls on a card as captured CUDA graphs: one graph for each shape, with inputs and outputs at fixed
//! addresses.
//!
//! A call copies what has changed to the card, starts the graph and copies the answers back. Rows are padded to a
//! few sizes, so that few graphs serve all batches. This module knows tensors and their names, but no part of a model.

use ndarray::{ArrayD, ArrayViewD, Axis};
use ort::memory::Allocator;
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::Tensor;

use super::card::CardMemory;
use super::card_turn;
use crate::domain::ModelPart;

/// The numbers of rows that captured graphs have. A call with more rows is not captured.
const SIZES: [usize; 5] = [1, 2, 4, 8, 16];
/// The number of graphs for one session. ONNX Runtime keeps them as long as the session, and each takes a few megabytes.
/// Further shapes run without a graph.
const MOST_GRAPHS: i32 = 64;
/// The bytes of all bound tensors of a session. Beyond this, the least recently used shape is dropped, and a call that needs
/// more alone is not captured. What ControlNets give takes most: 27 MB a row at 512 × 512, for the UNet and for each
/// ControlNet.
pub const MOST_BOUND_BYTES: usize = 256 << 20;

/// One call: what goes in and what comes out, by the names in the graph.
pub(super) struct Call<'a> {
    pub rows: usize,
    pub inputs: Vec<Input<'a>>,
    pub outputs: Vec<Output<'a>>,
}

pub(super) struct Input<'a> {
    pub name: &'a str,
    pub values: Values<'a>,
    /// Unique numbers of the values. Those that are on the card already are not copied again.
    pub numbers: Option<Vec<u64>>,
}

/// The values of an input.
pub(super) enum Values<'a> {
    /// One for each row, all of the same shape.
    Rows(Vec<ArrayViewD<'a, f32>>),
    /// The same for all rows. Its first axis has one place.
    Shared(ArrayViewD<'a, f32>),
}

pub(super) struct Output<'a> {
    pub name: &'a str,
    /// Of one row.
    pub shape: Vec<usize>,
}

impl<'a> Input<'a> {
    /// Row i of `values` for each row of the call.
    pub fn rows<D: ndarray::RemoveAxis>(name: &'a str, values: &'a ndarray::Array<f32, D>) -> Self {
        let rows = values.axis_iter(Axis(0)).map(ndarray::ArrayBase::into_dyn).collect();
        Self { name, values: Values::Rows(rows), numbers: None }
    }
}

/// The captured graphs of one session.
pub(super) struct Replays {
    /// The most recently used is last. This field comes before `memory`, so that the tensors are dropped first.
    captured: Vec<Captured>,
    memory: CardMemory,
    part: ModelPart,
    graphs: i32,
    /// The number of the last graph, captured or not. No number is used twice.
    last_number: i32,
    /// Whether a capture has failed. Then no more are tried.
    failed: bool,
}

impl Replays {
    /// For a session of this part.
    pub fn new(memory: CardMemory, part: ModelPart) -> Self {
        Self { memory, part, captured: Vec::new(), graphs: 0, last_number: 0, failed: false }
    }

    /// The call's outputs, `[rows, …]` each. `None` if this call must run without a graph.
    pub fn run(&mut self, session: &mut Session, call: &Call<'_>) -> ort::Result<Option<Vec<ArrayD<f32>>>> {
        let Some(shape) = CallShape::padded(call).filter(|shape| shape.bytes() <= MOST_BOUND_BYTES) else {
            return Ok(None);
        };
        if let Some(place) = self.captured.iter().position(|captured| captured.shape == shape) {
            let _turn = card_turn::shared();
            let mut captured = self.captured.remove(place);
            let answers = captured.run(session, call);
            self.captured.push(captured);
            return answers.map(Some);
        }
        if self.failed || self.graphs >= MOST_GRAPHS {
            return Ok(None);
        }
        let _turn = card_turn::alone();
        self.make_room(shape.bytes());
        self.last_number += 1;
        let mut captured = Captured::new(shape, self.last_number, &self.memory, session, call)?;
        match captured.run(session, call) {
            Ok(answers) => {
                self.graphs += 1;
                if self.graphs == MOST_GRAPHS {
                    tracing::info!(
                        "{} calls of {MOST_GRAPHS} shapes are captured: further shapes run kernel by kernel",
                        self.part
                    );
                }
                self.captured.push(captured);
                Ok(Some(answers))
            }
            Err(error) if crate::runtime::is_out_of_memory(&error.to_string()) => Err(error),
            Err(error) => {
                let reason = crate::runtime::reason(&error);
                tracing::warn!(
                    "{} calls run one kernel at a time, because none could be captured: {reason}",
                    self.part
                );
                self.failed = true;
                Ok(None)
            }
        }
    }

    /// The bytes of the tensors that it holds on the card.
    pub fn bytes(&self) -> usize {
        self.captured.iter().map(|captured| captured.shape.bytes()).sum()
    }

    /// Drops the least recently used graphs' tensors until `bytes` more fit.
    fn make_room(&mut self, bytes: usize) {
        while !self.captured.is_empty() && self.bytes() + bytes > MOST_BOUND_BYTES {
            self.captured.remove(0);
        }
    }
}

/// The shape of the calls that a captured graph can run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CallShape {
    rows: usize,
    /// Of each input, and then of each output.
    tensors: Vec<Vec<usize>>,
}

impl CallShape {
    /// The smallest shape that has room for these rows. `None` if there are too many rows.
    fn padded(call: &Call<'_>) -> Option<Self> {
        let rows = SIZES.into_iter().find(|size| *size >= call.rows)?;
        let of_rows = |row: &[usize]| [&[rows], row].concat();
        let input = |input: &Input<'_>| match &input.values {
            Values::Rows(values) => Some(of_rows(values.first()?.shape())),
            Values::Shared(values) => Some(values.shape().to_vec()),
        };
        let inputs = call.inputs.iter().map(input);
        let outputs = call.outputs.iter().map(|output| Some(of_rows(&output.shape)));
        Some(Self { rows, tensors: inputs.chain(outputs).collect::<Option<_>>()? })
    }

    /// The size of its tensors on the card.
    fn bytes(&self) -> usize {
        self.tensors.iter().map(|shape| shape.iter().product::<usize>() * size_of::<f32>()).sum()
    }
}

/// A graph and its tensors.
struct Captured {
    shape: CallShape,
    options: RunOptions,
    binding: IoBinding,
    inputs: Vec<Bound>,
    outputs: Vec<Mirrored>,
}

/// An input's tensor, and the numbers of the values that it holds.
struct Bound {
    tensor: Mirrored,
    numbers: Vec<u64>,
}

impl Captured {
    fn new(
        shape: CallShape,
        graph: i32,
        memory: &CardMemory,
        session: &Session,
        call: &Call<'_>,
    ) -> ort::Result<Self> {
        let mut binding = session.create_binding()?;
        let mut tensors = shape.tensors.iter();
        let mut inputs = Vec::with_capacity(call.inputs.len());
        for (input, shape) in call.inputs.iter().zip(tensors.by_ref()) {
            let tensor = Mirrored::new(memory, shape)?;
            binding.bind_input(input.name, &tensor.card)?;
            inputs.push(Bound { tensor, numbers: Vec::new() });
        }
        let mut outputs = Vec::with_capacity(call.outputs.len());
        for (output, shape) in call.outputs.iter().zip(tensors) {
            let mut tensor = Mirrored::new(memory, shape)?;
            binding.bind_output(output.name, &mut tensor.card)?;
            outputs.push(tensor);
        }
        let mut options = RunOptions::new()?;
        options.set("gpu_graph_id", graph.to_string())?;
        Ok(Self { shape, options, binding, inputs, outputs })
    }

    /// Runs the graph; its first run captures it.
    fn run(&mut self, session: &mut Session, call: &Call<'_>) -> ort::Result<Vec<ArrayD<f32>>> {
        // Padding rows repeat the first row. Their answers are not read.
        let padded = |row: usize| if row < call.rows { row } else { 0 };
        let all = 0..self.shape.rows;
        for (bound, input) in self.inputs.iter_mut().zip(&call.inputs) {
            let numbers: Option<Vec<u64>> = match (&input.numbers, &input.values) {
                (Some(numbers), Values::Rows(_)) => {
                    Some(all.clone().map(|row| numbers[padded(row)]).collect())
                }
                (numbers, _) => numbers.clone(),
            };
            if numbers.as_ref().is_some_and(|numbers| *numbers == bound.numbers) {
                continue;
            }
            bound.numbers.clear();
            match &input.values {
                Values::Rows(rows) => bound.tensor.write(all.clone().map(|row| rows[padded(row)].view()))?,
                Values::Shared(values) => bound.tensor.write(std::iter::once(values.view()))?,
            }
            bound.numbers = numbers.unwrap_or_default();
        }
        session.run_binding_with_options(&self.binding, &self.options)?;
        let read = |output: &mut Mirrored| {
            let answers = output.read()?;
            Ok(answers.slice_axis(Axis(0), (..call.rows).into()).to_owned())
        };
        self.outputs.iter_mut().map(read).collect()
    }
}

/// A tensor on the card, with a copy in the machine's memory.
struct Mirrored {
    host: Tensor<f32>,
    card: Tensor<f32>,
}

impl Mirrored {
    fn new(memory: &CardMemory, shape: &[usize]) -> ort::Result<Self> {
        let host = Tensor::new(&Allocator::default(), shape.to_vec())?;
        Ok(Self { host, card: memory.tensor(shape)? })
    }

    /// Copies the values, one after the other, to the card.
    fn write<'a>(&mut self, values: impl Iterator<Item = ArrayViewD<'a, f32>>) -> ort::Result<()> {
        let (_, places) = self.host.extract_tensor_mut();
        fill(places, values);
        self.host.copy_into(&mut self.card)
    }

    /// Copies the values from the card.
    fn read(&mut self) -> ort::Result<ArrayViewD<'_, f32>> {
        self.card.copy_into(&mut self.host)?;
        Ok(self.host.extract_array())
    }
}

/// Writes the values of the rows, one after the other.
fn fill<'a>(places: &mut [f32], rows: impl Iterator<Item = ArrayViewD<'a, f32>>) {
    let mut rest = places;
    for row in rows {
        let (place, behind) = rest.split_at_mut(row.len().min(rest.len()));
        match row.as_slice() {
            Some(values) => place.copy_from_slice(&values[..place.len()]),
            None => place.iter_mut().zip(row.iter()).for_each(|(place, value)| *place = *value),
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array1, Array3, Array4, Dimension, RemoveAxis};

    use super::*;

    fn call<'a, D: Dimension + RemoveAxis>(sample: &'a Array<f32, D>, hint: &'a Array4<f32>) -> Call<'a> {
        let shared = Input { name: "hint", values: Values::Shared(hint.view().into_dyn()), numbers: None };
        Call {
            rows: sample.len_of(Axis(0)),
            inputs: vec![Input::rows("sample", sample), shared],
            outputs: vec![Output { name: "out_sample", shape: vec![4, 8, 8] }],
        }
    }

    #[test]
    fn rows_are_padded_to_the_next_size_and_too_many_are_not_captured() {
        let hint = Array4::zeros((1, 3, 64, 64));
        let padded = |count: usize| {
            let sample = Array4::zeros((count, 4, 8, 8));
            CallShape::padded(&call(&sample, &hint)).map(|shape| shape.rows)
        };
        let sizes = [1, 2, 3, 4, 5, 8, 9, 16, 17].map(padded);
        assert_eq!(sizes, [Some(1), Some(2), Some(4), Some(4), Some(8), Some(8), Some(16), Some(16), None]);
    }

    #[test]
    fn a_shape_has_the_padded_rows_of_each_tensor_and_what_is_shared_once() {
        let hint = Array4::zeros((1, 3, 64, 64));
        let timesteps = Array1::zeros(3);
        let shape = CallShape::padded(&call(&timesteps, &hint)).unwrap();
        assert_eq!(shape.tensors, [vec![4], vec![1, 3, 64, 64], vec![4, 4, 8, 8]]);
        assert_eq!(shape.bytes(), 4 * (4 + 3 * 64 * 64 + 4 * 4 * 64));
    }

    #[test]
    fn each_row_is_written_right_behind_the_one_before() {
        let rows = Array3::from_shape_vec((3, 2, 2), (0..12_u8).map(f32::from).collect()).unwrap();
        let whole = |values: [f32; 12]| values.map(|value| format!("{value}")).join(" ");
        let mut values = [-1.0; 12];
        // In standard layout, and with exchanged axes.
        fill(&mut values, rows.outer_iter().map(ndarray::ArrayBase::into_dyn));
        assert_eq!(whole(values), "0 1 2 3 4 5 6 7 8 9 10 11");
        fill(&mut values, rows.outer_iter().map(|row| row.reversed_axes().into_dyn()));
        assert_eq!(whole(values), "0 2 1 3 4 6 5 7 8 10 9 11");
    }

    #[test]
    fn a_controlled_call_of_eight_rows_of_the_usual_size_fits_and_one_of_sixteen_does_not() {
        // What a ControlNet gives for latents of 64 × 64 (Stable Diffusion v1).
        let level = |channels: usize, side: usize, count: usize| vec![vec![channels, side, side]; count];
        let residuals = [
            level(320, 64, 3),
            level(320, 32, 1),
            level(640, 32, 2),
            level(640, 16, 1),
            level(1280, 16, 2),
            level(1280, 8, 4),
        ]
        .concat();
        let bytes = |rows: usize| {
            let tensors = residuals.iter().map(|shape| [&[rows], &shape[..]].concat()).collect();
            CallShape { rows, tensors }.bytes()
        };
        assert!(bytes(8) < MOST_BOUND_BYTES && bytes(16) > MOST_BOUND_BYTES, "{}", bytes(1));
        assert!((26_000_000..28_000_000).contains(&bytes(1)), "{}", bytes(1));
    }
}
