//! Finds the text encoder's layers before the last one, for `clip_skip`: the graph's outputs that have them, and their
//! layer norm.
//!
//! Exports with these layers (optimum's `hidden_states.N`, where 0 is the embeddings) give them raw. The reference applies
//! the model's final layer norm to each (A1111's `encode_with_transformers`, diffusers' `encode_prompt`). Its weights are
//! in the graph's file under their trained name. Our own graphs norm the layers themselves, in outputs `clip_skip.N`. A model
//! that uses fewer layers than our graph has ends at such an output.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek};
use std::path::{Component, Path};

use ndarray::{Array3, Axis};

use super::ModelError;
use crate::diffusion::files::{GraphBuild, OnnxFile, PartFiles, PartGraph, StoredTensor};
use crate::domain::ModelPart;

/// How to get a layer other than the last.
#[derive(Clone)]
pub struct HiddenLayers {
    /// The number of layers without the embeddings.
    count: u32,
    /// How many layers our graph has behind the last that is used.
    unused: u32,
    /// The norm that remains to be applied.
    norm: Option<FinalNorm>,
}

/// CLIP's `final_layer_norm`.
#[derive(Clone)]
struct FinalNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

const NORM_WEIGHT: &str = "final_layer_norm.weight";
const NORM_BIAS: &str = "final_layer_norm.bias";
/// The largest CLIPs have 48.
const MOST_LAYERS: u32 = 64;
/// `layer_norm_eps` of every CLIP.
const EPSILON: f64 = 1e-5;

impl HiddenLayers {
    /// `None` if the graph outputs only its last layer, or if its final layer norm is not found.
    pub fn find(text_encoder: &PartFiles) -> Result<Option<Self>, ModelError> {
        // All builds of our graph output the same layers.
        let path = match text_encoder.graph(GraphBuild::Cpu)? {
            PartGraph::Weightless(graph) => {
                let has = |clip_skip: &u32| graph.outputs().contains(&normed_output_name(*clip_skip));
                let others = (2..=MOST_LAYERS).take_while(has).count();
                let (all, unused) = (1 + u32::try_from(others).unwrap_or(0), text_encoder.unused_layers()?);
                return Ok(Some(Self { count: all.saturating_sub(unused), unused, norm: None }));
            }
            PartGraph::Onnx(path) => path,
        };
        let found = File::open(path)
            .and_then(|file| Self::read(&mut BufReader::new(file), path.parent().unwrap_or(Path::new(""))));
        // Loading the whole file gives a better error.
        Ok(found.unwrap_or_else(|error| {
            tracing::debug!(%error, "cannot find the text encoder's layers");
            None
        }))
    }

    fn read(graph: &mut (impl BufRead + Seek), folder: &Path) -> io::Result<Option<Self>> {
        let is_norm = |name: &str| name.contains(NORM_WEIGHT) || name.contains(NORM_BIAS);
        let file = OnnxFile::read(graph, is_norm)?;
        let states =
            (0..=MOST_LAYERS).take_while(|layer| file.outputs.contains(&output_name(*layer))).count();
        let count = u32::try_from(states.saturating_sub(1)).unwrap_or(0);
        // A converter may have added text before and after the name.
        let named = |part: &str| file.tensors.iter().find(|tensor| tensor.name.contains(part));
        let (true, Some(weight), Some(bias)) = (count > 0, named(NORM_WEIGHT), named(NORM_BIAS)) else {
            return Ok(None);
        };
        let mut values = |tensor: &StoredTensor| match tensor.file_beside() {
            None => tensor.values(graph),
            Some(name) if is_plain(name) => tensor.values(&mut File::open(folder.join(name))?),
            Some(_) => Err(io::Error::other("weights outside the model's folder")),
        };
        let (weight, bias) = (values(weight)?, values(bias)?);
        let fits = weight.len() == bias.len();
        Ok(fits.then_some(Self { count, unused: 0, norm: Some(FinalNorm { weight, bias }) }))
    }

    /// The largest `clip_skip`: the first layer's.
    pub fn max_clip_skip(&self) -> u32 {
        self.count
    }

    /// The output with the layer that `clip_skip` means; 1 is the last. `None` if that is the graph's own last.
    pub fn output_for(&self, clip_skip: u32) -> Option<String> {
        let skipped = clip_skip.max(1) + self.unused;
        match self.norm {
            _ if skipped == 1 => None,
            Some(_) => Some(output_name((self.count + 1).saturating_sub(skipped))),
            None => Some(normed_output_name(skipped)),
        }
    }

    /// The embedding from a layer's output `[1, tokens, dim]`.
    pub fn finish(&self, hidden: Array3<f32>) -> Result<Array3<f32>, ModelError> {
        match &self.norm {
            Some(norm) => norm.apply(hidden),
            None => Ok(hidden),
        }
    }
}

impl FinalNorm {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "as the reference rounds"
    )]
    fn apply(&self, mut hidden: Array3<f32>) -> Result<Array3<f32>, ModelError> {
        let dim = hidden.dim().2;
        if dim != self.weight.len() {
            let reason =
                format!("its layers have {dim} channels, but its final layer norm has {}", self.weight.len());
            return Err(ModelError::Graph { part: ModelPart::TextEncoder, reason });
        }
        for mut token in hidden.lanes_mut(Axis(2)) {
            let mean = token.iter().map(|&x| f64::from(x)).sum::<f64>() / dim as f64;
            let variance = token.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / dim as f64;
            let scale = 1.0 / (variance + EPSILON).sqrt();
            for ((x, weight), bias) in token.iter_mut().zip(&self.weight).zip(&self.bias) {
                *x = ((f64::from(*x) - mean) * scale) as f32 * weight + bias;
            }
        }
        Ok(hidden)
    }
}

fn output_name(layer: u32) -> String {
    format!("hidden_states.{layer}")
}

fn normed_output_name(clip_skip: u32) -> String {
    format!("clip_skip.{clip_skip}")
}

/// Whether a relative path stays within its folder.
fn is_plain(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
