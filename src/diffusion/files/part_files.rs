//! Where one part's graph and weights are: an ONNX file that has both, or weights for a graph of ours.

mod facts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lazy_checkpoint::LazyCheckpoint;
use super::model_place::has_extension;
use super::onnx_folder::{GRAPH_NAMES, files_with_weights, onnx_graph};
use super::shards::{check_shards, weight_files};
use super::vae_beside::vaes_beside;
use super::{
    Architecture, Checkpoint, FileError, GraphBuild, GraphLibrary, ModelPlace, Target, TensorFile,
    WeightlessGraph, Weights,
};
use crate::domain::ModelPart;

/// The files of one part of a model.
#[derive(Clone)]
pub struct PartFiles {
    part: ModelPart,
    source: Source,
    /// How many of the text encoder's layers are used, where its configuration says so.
    hidden_layers: Option<u32>,
}

#[derive(Clone)]
enum Source {
    /// A graph with its weights in it or beside it.
    Onnx { path: PathBuf, files: Vec<(String, u64)> },
    /// Weights for a graph of ours. The VAE's halves share theirs, and so do all parts of a checkpoint in one file.
    Weights { checkpoint: Arc<LazyCheckpoint>, graphs: Arc<GraphLibrary> },
}

/// What a session is made from.
pub enum PartGraph<'a> {
    Onnx(&'a Path),
    Weightless(Arc<WeightlessGraph>),
}

const CONV_IN: &str = "conv_in.weight";
/// A UNet that was distilled with an embedding of the guidance scale has this weight.
const GUIDANCE: &str = "time_embedding.cond_proj.weight";
const NO_GUIDED_INPAINTING: &str =
    "stablehand has none for inpainting with a guidance embedding (time_embedding.cond_proj)";
const NO_GUIDED_EDITING: &str =
    "stablehand has none for InstructPix2Pix with a guidance embedding (time_embedding.cond_proj)";

/// Where diffusers keeps the weights of the parts. The VAE's halves share theirs.
const WEIGHT_FOLDERS: [(&str, &[ModelPart]); 4] = [
    ("text_encoder", &[ModelPart::TextEncoder]),
    ("unet", &[ModelPart::UNet]),
    ("vae", &[ModelPart::VaeDecoder, ModelPart::VaeEncoder]),
    ("safety_checker", &[ModelPart::SafetyChecker]),
];

/// A weight that every safety checker has.
const CONCEPTS: &str = "concept_embeds";

impl PartFiles {
    /// The parts that the model has. Fails where one that every model needs is missing.
    pub fn find_all(place: &ModelPlace) -> Result<BTreeMap<ModelPart, Self>, FileError> {
        let graphs = Arc::new(GraphLibrary::new(place.clone()));
        match place {
            ModelPlace::Embedded => embedded_parts(place, &graphs),
            ModelPlace::Folder(path) => parts_in_folder(place, path, &graphs),
            ModelPlace::Checkpoint { path, file, architecture } => {
                let parts = parts_of_checkpoint(path, file, *architecture, &graphs);
                match missing_parts(path, &parts) {
                    Some(reason) => Err(place.not_a_model(reason)),
                    None => Ok(parts),
                }
            }
        }
    }

    /// The part whose ONNX graph lies in `folder`, if one does.
    pub fn from_onnx(part: ModelPart, folder: &Path) -> Option<Self> {
        let path = folder.join(onnx_graph(folder)?);
        let source = Source::Onnx { path, files: files_with_weights(folder) };
        Some(Self { part, source, hidden_layers: None })
    }

    pub fn part(&self) -> ModelPart {
        self.part
    }

    /// Whether its weights come without a graph.
    pub fn takes_our_graph(&self) -> bool {
        matches!(self.source, Source::Weights { .. })
    }

    /// The files with the weights, and the graph where it comes with them, each with its size in bytes.
    pub fn list(&self) -> Vec<(String, u64)> {
        match &self.source {
            Source::Onnx { files, .. } => files.clone(),
            Source::Weights { checkpoint, .. } => {
                let files = checkpoint.get().into_iter().flat_map(Checkpoint::files);
                files.map(|file| (file.name().to_owned(), file.length())).collect()
            }
        }
    }

    /// Whether the file of an ONNX graph says that it is in half precision.
    pub fn is_half_by_name(&self) -> bool {
        match &self.source {
            Source::Onnx { path, .. } => {
                path.file_name().is_some_and(|name| name.to_string_lossy().contains("fp16"))
            }
            Source::Weights { .. } => false,
        }
    }

    /// The part's own graph, or this build of ours.
    pub fn graph(&self, build: GraphBuild) -> Result<PartGraph<'_>, FileError> {
        let (checkpoint, graphs) = match &self.source {
            Source::Onnx { path, .. } => return Ok(PartGraph::Onnx(path)),
            Source::Weights { checkpoint, graphs } => (checkpoint.get()?, graphs),
        };
        let is_guided = self.part == ModelPart::UNet && checkpoint.has(ModelPart::UNet, GUIDANCE);
        let name = match (self.part, self.unet_channels()) {
            (ModelPart::UNet, Some(9)) if is_guided => {
                return Err(FileError::Graph(NO_GUIDED_INPAINTING.to_owned()));
            }
            (ModelPart::UNet, Some(8)) if is_guided => {
                return Err(FileError::Graph(NO_GUIDED_EDITING.to_owned()));
            }
            (ModelPart::UNet, _) if is_guided => "unet_guided",
            (ModelPart::UNet, Some(9)) => "unet_inpainting",
            (ModelPart::UNet, Some(8)) => "unet_pix2pix",
            (part, _) => part.name(),
        };
        Ok(PartGraph::Weightless(graphs.find(name, build)?))
    }

    /// The channels that a UNet reads, if its weights come without a graph.
    pub fn unet_channels(&self) -> Option<usize> {
        let Source::Weights { checkpoint, .. } = &self.source else { return None };
        checkpoint.get().ok()?.shape(ModelPart::UNet, CONV_IN)?.get(1).copied()
    }

    /// Fails if a weight that our graph needs is missing or has another shape.
    pub fn check_weights(&self) -> Result<(), FileError> {
        match (&self.source, self.graph(GraphBuild::Cpu)?) {
            (Source::Weights { checkpoint, .. }, PartGraph::Weightless(graph)) => {
                checkpoint.get()?.check(self.part, &graph)
            }
            _ => Ok(()),
        }
    }

    /// The part's weights in the layout of one of our graphs. `None` if the part's own graph contains them.
    pub fn weights(&self, graph: &WeightlessGraph) -> Result<Option<Weights>, FileError> {
        match &self.source {
            Source::Onnx { .. } => Ok(None),
            Source::Weights { checkpoint, .. } => {
                Ok(Some(checkpoint.get()?.fill(self.part, graph, |name| self.needs(name))?))
            }
        }
    }

    /// All values of one weight, as precise as the files have them. `None` if the part's own graph contains them.
    pub fn values(&self, name: &str) -> Result<Option<Vec<f32>>, FileError> {
        match &self.source {
            Source::Onnx { .. } => Ok(None),
            Source::Weights { checkpoint, .. } => Ok(Some(checkpoint.get()?.values(self.part, name)?)),
        }
    }

    /// The weights that LoRAs may change, by name and shape: not those that have no say, which the files may lack. `None` if the part's own graph contains the weights.
    pub fn lora_targets(&self) -> Result<Option<Vec<Target>>, FileError> {
        // They are the same in every build.
        let PartGraph::Weightless(graph) = self.graph(GraphBuild::Cpu)? else { return Ok(None) };
        let target = |(name, shape): (&str, &[usize])| Target {
            part: self.part,
            parameter: name.to_owned(),
            shape: shape.to_vec(),
        };
        Ok(Some(graph.wanted().filter(|(name, _)| self.needs(name)).map(target).collect()))
    }
}

fn embedded_parts(
    place: &ModelPlace,
    graphs: &Arc<GraphLibrary>,
) -> Result<BTreeMap<ModelPart, PartFiles>, FileError> {
    let mut parts = BTreeMap::new();
    for (folder, whose) in WEIGHT_FOLDERS {
        let place = place.clone();
        let checkpoint = LazyCheckpoint::new(move || {
            let files = place.embedded().into_iter().flat_map(|files| files.in_folder(folder));
            let weights = files.filter(|(name, _)| has_extension(name, "safetensors"));
            let opened = weights.map(|(name, bytes)| Ok(Arc::new(TensorFile::embedded(name, bytes)?)));
            Ok(Checkpoint::new(opened.collect::<Result<_, FileError>>()?, Architecture::TinySd))
        });
        if checkpoint.get()?.files().next().is_none() {
            continue;
        }
        parts.extend(whose.iter().map(|part| (*part, from_weights(*part, &checkpoint, graphs))));
    }
    Ok(parts)
}

fn parts_in_folder(
    place: &ModelPlace,
    path: &Path,
    graphs: &Arc<GraphLibrary>,
) -> Result<BTreeMap<ModelPart, PartFiles>, FileError> {
    let mut parts = BTreeMap::new();
    for (folder, whose) in WEIGHT_FOLDERS {
        let folder = path.join(folder);
        if weight_files(&folder).is_empty() {
            continue;
        }
        let place = place.clone();
        let checkpoint = LazyCheckpoint::new(move || {
            let paths = weight_files(&folder);
            check_shards(&paths).map_err(|reason| place.not_a_model(reason))?;
            let opened = paths.iter().map(|path| Ok(Arc::new(TensorFile::open(path)?)));
            Ok(Checkpoint::new(opened.collect::<Result<_, FileError>>()?, Architecture::StableDiffusionV1))
        });
        let opened = checkpoint.get().map(drop);
        if whose.iter().any(|part| [ModelPart::TextEncoder, ModelPart::UNet].contains(part)) {
            opened?;
        }
        parts.extend(whose.iter().map(|part| (*part, from_weights(*part, &checkpoint, graphs))));
    }
    for part in ModelPart::ALL {
        if !parts.contains_key(&part) {
            parts.extend(PartFiles::from_onnx(part, &path.join(part.name())).map(|files| (part, files)));
        }
    }
    match ModelPart::REQUIRED.into_iter().find(|part| !parts.contains_key(part)) {
        Some(part) => {
            let of_part = WEIGHT_FOLDERS.iter().find(|(_, whose)| whose.contains(&part));
            let folder = of_part.map_or(part.name(), |(folder, _)| folder);
            let graph = GRAPH_NAMES[0];
            Err(place.not_a_model(format!(
                "it has no {part}/{graph}, and no weights in {folder}: if they were there, fetch the model again"
            )))
        }
        None => Ok(parts),
    }
}

fn parts_of_checkpoint(
    path: &Path,
    file: &Arc<TensorFile>,
    architecture: Architecture,
    graphs: &Arc<GraphLibrary>,
) -> BTreeMap<ModelPart, PartFiles> {
    let main = Arc::clone(file);
    let all = LazyCheckpoint::new(move || Ok(Checkpoint::new(vec![Arc::clone(&main)], architecture)));
    let vae = match vaes_beside(path).into_iter().next() {
        Some(beside) => {
            let main = Arc::clone(file);
            LazyCheckpoint::new(move || {
                let files = vec![Arc::new(TensorFile::open(&beside)?), Arc::clone(&main)];
                Ok(Checkpoint::new(files, architecture))
            })
        }
        None => Arc::clone(&all),
    };
    // `missing_parts` names parts that are missing. Single tensors that are missing are named when they are loaded.
    let mut parts: BTreeMap<_, _> =
        [(ModelPart::TextEncoder, &all), (ModelPart::UNet, &all), (ModelPart::VaeDecoder, &vae)]
            .into_iter()
            .map(|(part, checkpoint)| (part, from_weights(part, checkpoint, graphs)))
            .collect();
    if vae.get().is_ok_and(|vae| vae.has(ModelPart::VaeEncoder, "encoder.conv_in.weight")) {
        parts.insert(ModelPart::VaeEncoder, from_weights(ModelPart::VaeEncoder, &vae, graphs));
    }
    let beside = path.with_extension("safety_checker.safetensors");
    let checker = match beside.is_file() {
        true => Some(LazyCheckpoint::new(move || {
            Ok(Checkpoint::new(vec![Arc::new(TensorFile::open(&beside)?)], architecture))
        })),
        false => {
            Some(all).filter(|all| all.get().is_ok_and(|all| all.has(ModelPart::SafetyChecker, CONCEPTS)))
        }
    };
    if let Some(checker) = checker {
        parts.insert(ModelPart::SafetyChecker, from_weights(ModelPart::SafetyChecker, &checker, graphs));
    }
    parts
}

/// What a checkpoint in one file lacks, and what to do about it. A part counts as missing if its first weight is. None
/// where it lacks nothing, or a VAE beside it cannot be read: that is an error of its own.
fn missing_parts(path: &Path, parts: &BTreeMap<ModelPart, PartFiles>) -> Option<String> {
    let lacks = |part: ModelPart, weight: &str| match parts.get(&part).map(|files| &files.source) {
        Some(Source::Weights { checkpoint, .. }) => checkpoint.get().is_ok_and(|all| !all.has(part, weight)),
        _ => false,
    };
    let text_encoder = lacks(ModelPart::TextEncoder, "text_model.encoder.layers.0.self_attn.q_proj.weight");
    let vae = lacks(ModelPart::VaeDecoder, "decoder.conv_in.weight");
    let beside = path.with_extension("vae.safetensors");
    let beside = beside.file_name().unwrap_or_default().to_string_lossy();
    let text_encoder = text_encoder.then(|| {
        "it has no text encoder (no tensor cond_stage_model.…): use a version of the checkpoint that has one"
            .to_owned()
    });
    let vae = vae.then(|| {
        format!("it has no VAE (no tensor first_stage_model.…): put a VAE beside it as {beside}, or use a version that has one")
    });
    let missing: Vec<String> = text_encoder.into_iter().chain(vae).collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

fn from_weights(part: ModelPart, checkpoint: &Arc<LazyCheckpoint>, graphs: &Arc<GraphLibrary>) -> PartFiles {
    let source = Source::Weights { checkpoint: Arc::clone(checkpoint), graphs: Arc::clone(graphs) };
    PartFiles { part, source, hidden_layers: None }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::diffusion::files::{Originals, Parameters as _};

    #[test]
    fn weights_are_changed_in_the_graph_s_own_order_and_precision() {
        let parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
        let unet = &parts[&ModelPart::UNet];
        let blocks = [8, 16].map(|channels_in_a_block| GraphBuild::Nchwc { channels_in_a_block });
        for build in [GraphBuild::Cpu, GraphBuild::Cuda, blocks[0], blocks[1]] {
            let PartGraph::Weightless(graph) = unet.graph(build).unwrap() else { panic!("our graph") };
            let mut weights = unet.weights(&graph).unwrap().unwrap();
            for name in [
                "conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            ] {
                let mut originals = Originals { weights: &mut weights, files: unet };
                let before = originals.values(name).unwrap();
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let after: Vec<f32> =
                    before.iter().enumerate().map(|(i, before)| before + i as f32 * 1e-4).collect();
                originals.replace(name, &after).unwrap();
                let kept = |value: f32| match build {
                    GraphBuild::Cuda => half::f16::from_f32(value).to_f32(),
                    _ => value,
                };
                assert_eq!(
                    weights.values(name).unwrap(),
                    after.into_iter().map(kept).collect::<Vec<_>>(),
                    "{name}"
                );
            }
            assert!(weights.replace("conv_in.weight", &[0.0]).unwrap_err().contains("1728 values, not 1"));
            assert!(weights.replace("nothing", &[]).unwrap_err().contains("no weight nothing"));
            let _reader = std::sync::Arc::clone(weights.buffer());
            assert!(weights.replace("conv_in.weight", &[0.0; 1728]).unwrap_err().contains("in use"));
        }
    }

    #[test]
    fn a_vae_that_cannot_be_read_fails_when_it_is_used_until_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["text_encoder", "unet", "vae"] {
            let file = "diffusion_pytorch_model.fp16.safetensors";
            let name = if part == "text_encoder" { "model.fp16.safetensors" } else { file };
            let from = format!("{}/models/tiny-sd/{part}/{name}", env!("CARGO_MANIFEST_DIR"));
            fs::create_dir(folder.path().join(part)).unwrap();
            fs::copy(from, folder.path().join(part).join(name)).unwrap();
        }
        let vae = folder.path().join("vae/diffusion_pytorch_model.fp16.safetensors");
        let whole = fs::read(&vae).unwrap();
        fs::write(&vae, &whole[..1000]).unwrap();
        let parts = PartFiles::find_all(&ModelPlace::Folder(folder.path().to_owned())).unwrap();
        let decoder = &parts[&ModelPart::VaeDecoder];
        let error = decoder.graph(GraphBuild::Cpu).err().unwrap().to_string();
        assert!(error.contains("vae/diffusion_pytorch_model"), "{error}");
        fs::write(&vae, whole).unwrap();
        assert!(decoder.graph(GraphBuild::Cpu).is_ok());
    }
}
