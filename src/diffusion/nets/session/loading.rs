//! Making a session: which graph it has, and where its weights come from.

use std::sync::Arc;
use std::time::Duration;

use ort::session::{RunOptions, Session};

use super::PartSession;
use crate::diffusion::files::{
    GraphBuild, INT8_LOCATION, Int8Graph, LOCATION, PartFiles, PartGraph, WeightlessGraph, Weights,
};
use crate::diffusion::nets::card_turn::{self, OnTurn};
use crate::diffusion::nets::graph_build::best_build;
use crate::diffusion::nets::port::Port;
use crate::diffusion::nets::{ModelError, UNetForm, card};
use crate::domain::{ModelPart, Precision};
use crate::runtime::{self, GraphSource, OnCard, Runtime, RuntimeError};

/// Changes a part's weights before a session reads them.
pub type Adjust<'a> = dyn Fn(&mut Weights) -> Result<(), ModelError> + 'a;

/// Which graph a session has, and where its weights come from.
enum Filled<'a> {
    /// The part's usual graph, its weights from the part's files.
    Adjusted(&'a Adjust<'a>),
    /// The graph of a UNet in another form.
    UNet { form: UNetForm, shared: Option<Weights>, adjust: &'a Adjust<'a> },
}

/// The outer layers of a UNet, with the weights of its session.
pub(in crate::diffusion::nets) enum OuterLayers {
    /// A session can be made of the graph at any time.
    Graph(Arc<WeightlessGraph>, GraphBuild),
    /// Made at once, on a card: the session's weights are in the card's own memory, where no other session reads them.
    Session(Box<PartSession>),
}

/// What a session of a graph of ours has besides.
#[derive(Default)]
struct Read {
    /// Those that it reads in place.
    weights: Option<Weights>,
    int8: Option<Arc<[u8]>>,
    captures: bool,
}

impl PartSession {
    /// Creates the session, and reads the weights if the graph does not contain them.
    pub fn load(files: &PartFiles, runtime: &Runtime) -> Result<Self, ModelError> {
        Self::load_adjusted(files, runtime, &|_| Ok(()))
    }

    /// The same, but `adjust` changes the weights first. It is not called if the graph contains them.
    pub fn load_adjusted(
        files: &PartFiles,
        runtime: &Runtime,
        adjust: &Adjust<'_>,
    ) -> Result<Self, ModelError> {
        Self::load_build(files, best_build(runtime), runtime, Filled::Adjusted(adjust))
    }

    /// A UNet's session in another form. It reads `shared`, the weights of a session of the plain graph, where there are
    /// any. `adjust` changes its own weights otherwise.
    pub fn load_unet(
        files: &PartFiles,
        runtime: &Runtime,
        form: UNetForm,
        shared: Option<Weights>,
        adjust: &Adjust<'_>,
    ) -> Result<Self, ModelError> {
        Self::load_build(files, best_build(runtime), runtime, Filled::UNet { form, shared, adjust })
    }

    /// The same in float32, on a card too. `None` if the graph contains its weights.
    pub fn load_float32(files: &PartFiles, runtime: &Runtime) -> Result<Option<Self>, ModelError> {
        if !files.takes_our_graph() {
            return Ok(None);
        }
        Self::load_build(files, GraphBuild::Cpu, runtime, Filled::Adjusted(&|_| Ok(()))).map(Some)
    }

    fn load_build(
        files: &PartFiles,
        build: GraphBuild,
        runtime: &Runtime,
        filled: Filled<'_>,
    ) -> Result<Self, ModelError> {
        let part = files.part();
        let (form, shared, adjust) = match filled {
            Filled::Adjusted(adjust) => (UNetForm::default(), None, adjust),
            Filled::UNet { form, shared, adjust } => (form, shared, adjust),
        };
        let (graph, shallow) = match form.is_controlled {
            true => (files.controlled_graph(build)?, None),
            false => (files.graph(build)?, files.shallow_graph(build)?),
        };
        match graph {
            PartGraph::Onnx(path) => {
                let session = {
                    let _turn = (!runtime.device().is_cpu()).then(card_turn::shared);
                    runtime.session(GraphSource::File(path)).map_err(|error| unusable(part, &error))?
                };
                Self::around(part, session, None, runtime)
            }
            PartGraph::Weightless(graph) => {
                let weights = if let Some(shared) = shared.filter(|shared| shared.fit(&graph)) {
                    shared
                } else {
                    let mut weights = files.weights(&graph)?.unwrap_or_else(|| graph.allocate());
                    adjust(&mut weights)?;
                    weights
                };
                let mut session =
                    Self::with_weights(part, &graph, (&weights, build), form.precision, runtime)?;
                // Few layers of those are linear: they stay in full precision.
                session.shallow = match shallow {
                    Some(shallow) if session.weights.is_none() => Some(OuterLayers::Session(Box::new(
                        Self::with_weights(part, &shallow, (&weights, build), Precision::Full, runtime)?,
                    ))),
                    shallow => shallow.map(|graph| OuterLayers::Graph(graph, build)),
                };
                Ok(session)
            }
        }
    }

    /// The session of a graph of ours. It keeps the weights where it reads them in place.
    pub(in crate::diffusion::nets) fn with_weights(
        part: ModelPart,
        graph: &WeightlessGraph,
        (weights, build): (&Weights, GraphBuild),
        precision: Precision,
        runtime: &Runtime,
    ) -> Result<Self, ModelError> {
        let is_on_card = !runtime.device().is_cpu();
        let int8 = match precision {
            Precision::Full => None,
            Precision::Int8 => Some(graph.in_int8()?),
        };
        let quantized = int8.as_ref().map(|int8| int8.quantize(weights)).transpose()?;
        let files: Vec<_> = [(LOCATION, weights.buffer())]
            .into_iter()
            .chain(quantized.iter().map(|quantized| (INT8_LOCATION, quantized)))
            .collect();
        let onnx = int8.as_ref().map_or(graph.onnx(), Int8Graph::onnx);
        let source = GraphSource::Weightless { onnx, files: &files };
        // Tests make sure of this for the builds inside the binary. Nodes on the CPU would read weights in place, and a
        // graph with such nodes cannot be captured.
        let is_wholly_on_card = is_on_card && build == GraphBuild::Cuda && graph.is_built_in();
        let captures = is_wholly_on_card
            && matches!(part, ModelPart::UNet | ModelPart::ControlNet)
            && !runtime.card_settings().no_captures;
        let session = {
            let _turn = is_on_card.then(card_turn::shared);
            let on_card = match is_on_card {
                false => OnCard::default(),
                true => OnCard { attention: Some(card::attention(runtime)), captures },
            };
            runtime.session_on_card(source, on_card).map_err(|error| unusable(part, &error))?
        };
        let read = Read { weights: (!is_wholly_on_card).then(|| weights.clone()), int8: quantized, captures };
        Self::around(part, session, Some(read), runtime)
    }

    /// `read` is of a graph of ours.
    fn around(
        part: ModelPart,
        session: Session,
        read: Option<Read>,
        runtime: &Runtime,
    ) -> Result<Self, ModelError> {
        let Read { weights, int8, captures } = read.unwrap_or_default();
        let is_on_card = !runtime.device().is_cpu();
        let session = OnTurn::new(session, is_on_card);
        let options = |key, value| {
            let options = options(key, value);
            options.map(Some).map_err(|error| unusable(part, &RuntimeError::Graph(runtime::reason(&error))))
        };
        let uncaptured = if captures { options("gpu_graph_id", "-1")? } else { None };
        let giving_back = match runtime.device().is_cpu() {
            true => options("memory.enable_memory_arena_shrinkage", "cpu:0")?,
            false => None,
        };
        let inputs =
            session.inputs().iter().filter_map(|port| Port::read(port.name(), port.dtype())).collect();
        let outputs =
            session.outputs().iter().filter_map(|port| Port::read(port.name(), port.dtype())).collect();
        Ok(Self {
            part,
            session,
            weights,
            _int8: int8,
            uncaptured,
            giving_back,
            is_on_card,
            threads: (!is_on_card).then_some(runtime.threads()),
            inputs,
            outputs,
            in_run: Duration::ZERO,
            last_run: Duration::ZERO,
            shallow: None,
        })
    }

    /// The outer layers of the same UNet, if it has a graph for them.
    pub(in crate::diffusion::nets) fn take_outer_layers(&mut self) -> Option<OuterLayers> {
        self.shallow.take()
    }
}

fn unusable(part: ModelPart, error: &RuntimeError) -> ModelError {
    ModelError::Graph { part, reason: error.to_string() }
}

/// Options for a run, with one entry.
fn options(key: &str, value: &str) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set(key, value)?;
    Ok(options)
}
