//! One ONNX graph as a function from tensors to a tensor.
//!
//! Only this module knows the element types of a graph. Callers use f32 (and token ids), and values are converted here,
//! so that half-precision and integer graphs need no other code.

mod loading;

use std::sync::Arc;
use std::time::{Duration, Instant};

use half::f16;
use ndarray::{Array, ArrayD, ArrayViewD, Dimension};
use ort::session::{RunOptions, Session, SessionInputValue, SessionOutputs};
use ort::value::{DynValue, Tensor, TensorElementType};

use super::ModelError;
use super::card::CardMemory;
use super::card_turn::{self, OnTurn};
use super::port::{Port, element_name};
use super::replay::Replays;
use crate::diffusion::files::Weights;
use crate::domain::ModelPart;
use crate::runtime::{self, Runtime, take_cores};

pub(super) use self::loading::OuterLayers;

/// What becomes of the memory that a run took, after the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkingMemory {
    /// The session keeps it, because it runs again soon.
    Keep,
    /// The system gets it back. On a card it is kept: a captured graph still writes there, and every other allocation
    /// would wait for the card.
    GiveBack,
}

/// A session on a CPU whose runs take longer than this takes turns with those of other workers. Small ones leave parts of the
/// cores idle, which another worker can use: with turns they drew half as much together (measured).
const LONG_RUN: Duration = Duration::from_millis(100);

/// One part's session with its ports.
pub struct PartSession {
    part: ModelPart,
    session: OnTurn<Session>,
    /// The weights that the session reads in place, so they are dropped after it. `None` if the graph contains them, or if
    /// the card has its own copy.
    weights: Option<Weights>,
    /// The quantised ones beside them, which it reads in place, too.
    _int8: Option<Arc<[u8]>>,
    /// Options for a run without capture. `None` if the session captures no runs.
    uncaptured: Option<RunOptions>,
    /// Options for a run after which the session gives its memory back. `None` on a card.
    giving_back: Option<RunOptions>,
    is_on_card: bool,
    /// Of the processor that a run takes. None on a card.
    threads: Option<usize>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    in_run: Duration,
    /// What the last run took.
    last_run: Duration,
    /// The outer layers of the same UNet.
    shallow: Option<OuterLayers>,
}

impl PartSession {
    /// The first input for which `is` holds. `what` describes it in the error.
    pub fn input(&self, what: &str, is: impl Fn(&Port) -> bool) -> Result<Port, ModelError> {
        use TensorElementType as Element;
        let port = self.inputs.iter().find(|port| is(port)).cloned();
        let port = port.ok_or_else(|| self.lacks("input", what, &self.inputs))?;
        match port.element {
            Element::Float32 | Element::Float16 | Element::Int64 | Element::Int32 => Ok(port),
            _ => Err(self.foreign_element(&port)),
        }
    }

    /// The graph's first tensor of this rank among its outputs.
    pub fn output(&self, what: &str, rank: usize) -> Result<Port, ModelError> {
        let port = self.outputs.iter().find(|port| port.rank() == rank).cloned();
        let port = port.ok_or_else(|| self.lacks("output", what, &self.outputs))?;
        match port.element {
            TensorElementType::Float32 | TensorElementType::Float16 => Ok(port),
            _ => Err(self.foreign_element(&port)),
        }
    }

    /// The graph's first output of this element type.
    pub fn output_with_element(&self, element: TensorElementType, what: &str) -> Result<Port, ModelError> {
        let port = self.outputs.iter().find(|port| port.element == element).cloned();
        port.ok_or_else(|| self.lacks("output", what, &self.outputs))
    }

    /// Fails if the graph has inputs other than `known`.
    pub fn only(&self, known: &[&Port]) -> Result<(), ModelError> {
        let mut foreign =
            self.inputs.iter().filter(|port| !known.iter().any(|known| known.name == port.name));
        foreign.next().map_or(Ok(()), |port| {
            Err(self.refuse(format!(
                "it needs an input {}, which no Stable Diffusion v1 {} has",
                port.name, self.part
            )))
        })
    }

    /// All inputs, as declared.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// All outputs, as declared.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// The output of this name.
    pub fn output_named(&self, name: &str) -> Result<Port, ModelError> {
        self.outputs
            .iter()
            .find(|port| port.name == name)
            .cloned()
            .ok_or_else(|| self.lacks("output", name, &self.outputs))
    }

    /// The error that this graph cannot be used.
    pub fn refuse(&self, reason: impl Into<String>) -> ModelError {
        ModelError::Graph { part: self.part, reason: reason.into() }
    }

    fn lacks(&self, kind: &str, what: &str, ports: &[Port]) -> ModelError {
        let found: Vec<_> = ports.iter().map(|port| format!("{} {port}", port.name)).collect();
        self.refuse(format!("it has no {kind} for the {what} among {}", found.join(", ")))
    }

    fn foreign_element(&self, port: &Port) -> ModelError {
        let element = element_name(port.element);
        self.refuse(format!("its {} is {element}; only float32 and float16 are supported", port.name))
    }

    /// Runs the graph on `inputs` and returns `output` as f32. Gives back the memory that the run took.
    pub fn run(&mut self, inputs: Vec<(&str, DynValue)>, output: &Port) -> Result<ArrayD<f32>, ModelError> {
        self.run_and(WorkingMemory::GiveBack, inputs, output)
    }

    /// The same, and `memory` says what becomes of the memory.
    pub fn run_and(
        &mut self,
        memory: WorkingMemory,
        inputs: Vec<(&str, DynValue)>,
        output: &Port,
    ) -> Result<ArrayD<f32>, ModelError> {
        let part = self.part;
        let failed = |error: ort::Error| ModelError::Run { part, reason: runtime::reason(&error) };
        self.run_then(memory, inputs, |outputs| read(outputs, output).map_err(failed))
    }

    /// The same for several outputs, in their order.
    pub fn run_for_all(
        &mut self,
        memory: WorkingMemory,
        inputs: Vec<(&str, DynValue)>,
        outputs: &[Port],
    ) -> Result<Vec<ArrayD<f32>>, ModelError> {
        let part = self.part;
        let failed = |error: ort::Error| ModelError::Run { part, reason: runtime::reason(&error) };
        self.run_then(memory, inputs, |values| {
            outputs.iter().map(|output| read(values, output).map_err(failed)).collect()
        })
    }

    fn run_then<T>(
        &mut self,
        memory: WorkingMemory,
        inputs: Vec<(&str, DynValue)>,
        then: impl FnOnce(&SessionOutputs<'_>) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let part = self.part;
        let failed = |error: ort::Error| ModelError::Run { part, reason: runtime::reason(&error) };
        let inputs: Vec<(&str, SessionInputValue)> =
            inputs.into_iter().map(|(name, value)| (name, value.into())).collect();
        let _turn = self.is_on_card.then(card_turn::shared);
        let _cores = self.threads.filter(|_| self.last_run > LONG_RUN).map(take_cores);
        let started = Instant::now();
        let giving_back = self.giving_back.as_ref().filter(|_| memory == WorkingMemory::GiveBack);
        let outputs = match self.uncaptured.as_ref().or(giving_back) {
            Some(options) => self.session.run_with_options(inputs, options),
            None => self.session.run(inputs),
        };
        let outputs = outputs.map_err(failed)?;
        self.last_run = started.elapsed();
        self.in_run += self.last_run;
        then(&outputs)
    }

    /// The weights that it reads in place. `None` if its graph contains them, or if a card has its own copy.
    pub fn weights(&self) -> Option<&Weights> {
        self.weights.as_ref()
    }

    /// A place for captured graphs of its runs. None if they cannot be captured.
    pub(super) fn replays(&self, runtime: &Runtime) -> Result<Option<OnTurn<Replays>>, ModelError> {
        if self.uncaptured.is_none() {
            return Ok(None);
        }
        let memory = CardMemory::open(runtime)?;
        Ok(memory.map(|memory| OnTurn::new(Replays::new(memory, self.part), true)))
    }

    /// Runs it by `run`, which may bind tensors. Takes no turn on the card: `run` knows whether it captures.
    pub fn run_by<T>(&mut self, run: impl FnOnce(&mut Session) -> ort::Result<T>) -> Result<T, ModelError> {
        let started = Instant::now();
        let outcome = run(&mut self.session);
        self.in_run += started.elapsed();
        outcome.map_err(|error| ModelError::Run { part: self.part, reason: runtime::reason(&error) })
    }

    /// The time spent in the session itself so far.
    pub fn time_in_run(&self) -> Duration {
        self.in_run
    }
}

/// An output as f32.
fn read(outputs: &SessionOutputs<'_>, output: &Port) -> ort::Result<ArrayD<f32>> {
    let value = &outputs[output.name.as_str()];
    match output.element {
        TensorElementType::Float16 => {
            let half: ArrayViewD<f16> = value.try_extract_array()?;
            Ok(half.mapv(f16::to_f32))
        }
        TensorElementType::Bool => {
            let flags: ArrayViewD<bool> = value.try_extract_array()?;
            Ok(flags.mapv(|flag| f32::from(u8::from(flag))))
        }
        _ => Ok(value.try_extract_array::<f32>()?.to_owned()),
    }
}

/// `values` as the tensor that `port` declares.
#[expect(clippy::cast_possible_truncation, reason = "integer timesteps: the graph knows whole ones only")]
pub(super) fn tensor<D: Dimension>(port: &Port, values: &Array<f32, D>) -> Result<DynValue, ModelError> {
    let shape = values.shape().to_vec();
    let values = values.iter().copied();
    match port.element {
        TensorElementType::Float16 => owned(port, shape, values.map(f16::from_f32).collect()),
        TensorElementType::Int64 => owned(port, shape, values.map(|value| value as i64).collect()),
        TensorElementType::Int32 => owned(port, shape, values.map(|value| value as i32).collect()),
        _ => owned(port, shape, values.collect()),
    }
}

/// Token ids as the tensor that `port` declares.
pub(super) fn ids(
    port: &Port,
    shape: &[usize],
    ids: impl Iterator<Item = u32>,
) -> Result<DynValue, ModelError> {
    match port.element {
        TensorElementType::Int32 => owned(port, shape.to_vec(), ids.map(u32::cast_signed).collect()),
        _ => owned(port, shape.to_vec(), ids.map(i64::from).collect()),
    }
}

fn owned<T: ort::value::PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static>(
    port: &Port,
    shape: Vec<usize>,
    values: Vec<T>,
) -> Result<DynValue, ModelError> {
    Tensor::from_array((shape, values))
        .map(Tensor::into_dyn)
        .map_err(|error| ModelError::Tensor { name: port.name.clone(), reason: runtime::reason(&error) })
}

/// `array` with the rank that its reader expects.
pub(super) fn ranked<D: Dimension>(part: ModelPart, array: ArrayD<f32>) -> Result<Array<f32, D>, ModelError> {
    let shape = array.shape().to_vec();
    array
        .into_dimensionality()
        .map_err(|_| ModelError::Run { part, reason: format!("it returned a tensor of shape {shape:?}") })
}
