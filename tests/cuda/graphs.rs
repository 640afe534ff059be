//! Every graph that ships for CUDA runs on every architecture, all of it on the card, at every shape.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};
use stablehand::runtime::{Attention, DeviceChoice, GraphSource, OnCard, Runtime};

use crate::card::{ARCHITECTURES, on_cards};
use crate::onnx::Model;
use crate::profile::Placement;

/// What our graphs call the file that their weights would be in.
const WEIGHTS: &str = "weights";
/// In latents. The second is odd in both directions, as a picture of 104×72 has them.
const SIZES: [(usize, usize); 2] = [(64, 64), (9, 13)];
/// A prompt of one chunk, and of two.
const TOKENS: [usize; 2] = [77, 154];
/// A guided picture has two rows. The last number is no multiple of anything.
const ROWS: [usize; 5] = [1, 2, 3, 16, 33];

/// A graph without its weights.
pub struct Graph {
    file: PathBuf,
    onnx: Vec<u8>,
    weight_bytes: usize,
}

/// All graphs with zeros for weights: a card that computes nothing does not mind.
pub struct Graphs {
    graphs: Vec<Graph>,
    /// As many as the largest graph reads.
    weights: Arc<[u8]>,
}

impl Graphs {
    /// All that are built for CUDA.
    pub fn all() -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let folders = ["graphs/sd-v1", "tiny-sd/graphs"].map(|folder| models.join(folder));
        let entries = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
        let paths = entries.map(|entry| entry.unwrap().path());
        let paths = paths.filter(|path| path.to_string_lossy().ends_with(".cuda.onnx"));
        let graphs: Vec<_> = paths.map(Graph::read).collect();
        assert_eq!(graphs.len(), 26, "sixteen of Stable Diffusion v1 and ten of tiny-sd");
        let length = graphs.iter().map(|graph| graph.weight_bytes).max().unwrap();
        Self { graphs, weights: vec![0; length].into() }
    }

    /// The one whose path ends so.
    pub fn named(&self, end: &str) -> &Graph {
        self.graphs.iter().find(|graph| graph.file.ends_with(end)).unwrap()
    }

    pub fn session(&self, graph: &Graph, runtime: &Runtime) -> Session {
        let files = [(WEIGHTS, &self.weights)];
        let source = GraphSource::Weightless { onnx: &graph.onnx, files: &files };
        let on_card = OnCard { attention: Attention::requested(), captures: false };
        runtime
            .session_on_card(source, on_card)
            .unwrap_or_else(|error| panic!("{}: {error}", graph.file.display()))
    }
}

impl Graph {
    fn read(file: PathBuf) -> Self {
        let number = |text: &str| text.parse::<usize>().unwrap();
        let mut model = Model::read(&file);
        let ends = model.graph().initializers.iter().filter_map(|tensor| {
            let value = |key: &str| {
                let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(key))?;
                entry.value.as_deref().map(number)
            };
            Some(value("offset")? + value("length")?)
        });
        let length = ends.max().unwrap();
        Self { onnx: fs::read(&file).unwrap(), file, weight_bytes: length }
    }

    fn part(&self) -> &str {
        self.file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap()
    }

    /// Shapes of inputs that go together: rows, latents' height and width, tokens.
    fn shapes(&self) -> Vec<[usize; 4]> {
        let (rows, tokens): (&[usize], &[usize]) = match self.part() {
            "unet" | "unet_inpainting" | "unet_guided" | "unet_pix2pix" => (&ROWS, &TOKENS),
            part if part.ends_with("_shallow") => (&ROWS[..3], &TOKENS),
            "controlnet" | "unet_controlled" | "unet_inpainting_controlled" => (&ROWS[..3], &TOKENS),
            _ => (&ROWS[..2], &TOKENS[..1]),
        };
        let sizes: &[(usize, usize)] = match self.part() {
            "text_encoder" | "safety_checker" => &SIZES[..1],
            _ => &SIZES,
        };
        let shapes = rows.iter().flat_map(|&rows| {
            sizes.iter().flat_map(move |&(height, width)| {
                tokens.iter().map(move |&tokens| [rows, height, width, tokens])
            })
        });
        shapes.collect()
    }

    /// Runs it once and looks at what it answers.
    pub fn run(&self, session: &mut Session, shape: [usize; 4]) {
        let what = format!("{} at {shape:?}", self.file.display());
        let [rows, height, width, tokens] = shape;
        let side = if self.part() == "vae_encoder" { 8 } else { 1 };
        let inputs: Vec<(String, SessionInputValue)> = session
            .inputs()
            .iter()
            .map(|port| {
                let ValueType::Tensor { ty, shape, dimension_symbols } = port.dtype() else {
                    panic!("{what}")
                };
                let fixed = |axis: usize| usize::try_from(shape[axis]).unwrap();
                let sizes = match (port.name(), shape.len()) {
                    ("input_ids", 2) => vec![rows, tokens],
                    // Words beside the vocabulary: as many as are learned.
                    ("extra_embeddings" | "timestep_cond", 2) => vec![rows, fixed(1)],
                    ("encoder_hidden_states", 3) => vec![rows, tokens, fixed(2)],
                    ("timestep", 1) => vec![rows],
                    // Always the same size.
                    ("clip_input", 4) => vec![rows, fixed(1), fixed(2), fixed(3)],
                    // One picture for all rows.
                    ("controlnet_cond", 4) => vec![1, fixed(1), 8 * height, 8 * width],
                    // `height.2` is the latents' height, halved twice and rounded up.
                    (name, 4) if name.contains("_residual") => {
                        let level = dimension_symbols[2].rsplit_once('.').map_or("0", |(_, level)| level);
                        let halved = |side: usize| side.div_ceil(1 << level.parse::<u32>().unwrap());
                        vec![rows, fixed(1), halved(height), halved(width)]
                    }
                    (_, 4) => vec![rows, fixed(1), side * height, side * width],
                    (name, _) => panic!("{what}: {name}"),
                };
                (port.name().to_owned(), zeros(*ty, sizes).into())
            })
            .collect();
        let outputs = session.run(inputs).unwrap_or_else(|error| panic!("{what}: {error}"));
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().unwrap();
        let shape: Vec<_> = shape.iter().map(|&size| usize::try_from(size).unwrap()).collect();
        let expected = match self.part() {
            "text_encoder" => vec![rows, tokens, shape[2]],
            "vae_decoder" | "vae_tiny" => vec![rows, 3, 8 * height, 8 * width],
            "vae_encoder" => vec![rows, 8, height, width],
            "safety_checker" => vec![rows, 20],
            // Its first output, which is as large as the latents.
            "controlnet" => vec![rows, shape[1], height, width],
            _ => vec![rows, 4, height, width],
        };
        assert_eq!(shape, expected, "{what}");
        assert_eq!(values.len(), expected.iter().product::<usize>(), "{what}");
    }
}

fn zeros(element: TensorElementType, shape: Vec<usize>) -> DynValue {
    let count = shape.iter().product();
    match element {
        TensorElementType::Int64 => Tensor::from_array((shape, vec![0_i64; count])).unwrap().into_dyn(),
        TensorElementType::Float32 => Tensor::from_array((shape, vec![0_f32; count])).unwrap().into_dyn(),
        other => panic!("an input of {other:?}"),
    }
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn every_graph_runs_at_every_shape_on_every_architecture() {
    on_cards(&ARCHITECTURES, |card| {
        let runtime = Runtime::load(DeviceChoice::Cuda(0)).unwrap();
        let graphs = Graphs::all();
        for graph in &graphs.graphs {
            let mut session = graphs.session(graph, &runtime);
            for shape in graph.shapes() {
                let (counts, ()) = card.count(|| graph.run(&mut session, shape));
                // Inputs go to the card and outputs come back: one copy more would be a node on the CPU.
                let copies = [counts.get("to card"), counts.get("to host")];
                let ports = [session.inputs().len(), session.outputs().len()].map(|ports| ports as u64);
                assert_eq!(copies, ports, "{} at {shape:?}", graph.file.display());
            }
        }
    });
}

#[test]
#[ignore = "needs tests/cuda/install"]
fn every_node_of_our_graphs_is_on_the_card() {
    on_cards(&ARCHITECTURES, |_| {
        let graphs = Graphs::all();
        for graph in &graphs.graphs {
            let folder = tempfile::tempdir().unwrap();
            let runtime = Runtime::load(DeviceChoice::Cuda(0)).unwrap().with_profiles(folder.path());
            let mut session = graphs.session(graph, &runtime);
            for (height, width) in SIZES {
                graph.run(&mut session, [2, height, width, TOKENS[0]]);
            }
            drop(session);
            Placement::read(folder.path()).assert_wholly_on_card(&graph.file.display().to_string());
        }
    });
}
