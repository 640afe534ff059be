//! Finds the parts of a model: inside the binary, in a folder, or in one checkpoint with what lies beside it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::{PartFiles, Source};
use crate::diffusion::files::beside::{TINY_VAE, VAE, beside};
use crate::diffusion::files::lazy_checkpoint::LazyCheckpoint;
use crate::diffusion::files::model_place::has_extension;
use crate::diffusion::files::onnx_folder::GRAPH_NAMES;
use crate::diffusion::files::shards::{check_shards, weight_files};
use crate::diffusion::files::{Architecture, Checkpoint, FileError, GraphLibrary, ModelPlace, TensorFile};
use crate::domain::ModelPart;

/// Where diffusers keeps the weights of the parts. The VAE's halves share theirs.
const WEIGHT_FOLDERS: [(&str, &[ModelPart]); 5] = [
    ("text_encoder", &[ModelPart::TextEncoder]),
    ("unet", &[ModelPart::UNet]),
    ("vae", &[ModelPart::VaeDecoder, ModelPart::VaeEncoder]),
    ("safety_checker", &[ModelPart::SafetyChecker]),
    ("vae_tiny", &[ModelPart::TinyVae]),
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
    let vae = match beside(path, VAE).into_iter().next() {
        Some(other) => {
            let main = Arc::clone(file);
            LazyCheckpoint::new(move || {
                let files = vec![Arc::new(TensorFile::open(&other)?), Arc::clone(&main)];
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
    let checker_beside = path.with_extension("safety_checker.safetensors");
    let checker = match checker_beside.is_file() {
        true => Some(LazyCheckpoint::new(move || {
            Ok(Checkpoint::new(vec![Arc::new(TensorFile::open(&checker_beside)?)], architecture))
        })),
        false => {
            Some(all).filter(|all| all.get().is_ok_and(|all| all.has(ModelPart::SafetyChecker, CONCEPTS)))
        }
    };
    if let Some(checker) = checker {
        parts.insert(ModelPart::SafetyChecker, from_weights(ModelPart::SafetyChecker, &checker, graphs));
    }
    if let Some(beside) = beside(path, TINY_VAE).into_iter().next() {
        let tiny = LazyCheckpoint::new(move || {
            Ok(Checkpoint::new(vec![Arc::new(TensorFile::open(&beside)?)], architecture))
        });
        parts.insert(ModelPart::TinyVae, from_weights(ModelPart::TinyVae, &tiny, graphs));
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
