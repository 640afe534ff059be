//! A model, opened: everything that its files say, read once, before any weights are.
//!
//! All commands begin here: `serve` asks it for the input rules and memory needs, `generate` for a pipeline, `models
//! check` for what it holds. Nothing else opens a model's path.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Pipeline;
use super::add_ons::{AddOnFolders, AddOns};
use super::description::ModelDescription;
use super::loaded::LoadedModel;
use super::memory::MemoryNeeds;
use super::prompt_check::ChunkCheck;
use crate::diffusion::files::{
    GraphBuild, ModelFiles, PartFiles, PartGraph, TOKEN_EMBEDDING, Target, TinyVae, UNetConfig, Unread,
    UpscalerFolder, WildcardFolder,
};
use crate::diffusion::nets::{EDITING_CHANNELS, HiddenLayers, ModelError, Vocabulary};
use crate::diffusion::text::Tokenizer;
use crate::domain::{InputRules, MAX_CACHE_INTERVAL, ModelPart, Precision};
use crate::runtime::{Device, Runtime};

/// Cheap to clone: its clones share what was read.
#[derive(Clone)]
pub struct Model {
    pub(super) files: Arc<ModelFiles>,
    pub(super) description: Arc<ModelDescription>,
    pub(super) tokenizer: Arc<Tokenizer>,
    /// The text encoder's layers before its last, where its graph gives them.
    pub(super) hidden_layers: Option<HiddenLayers>,
    pub(super) vocabulary: Vocabulary,
    rules: InputRules,
    takes_add_ons: bool,
    pub(super) add_ons: Option<AddOns>,
    pub(super) tiny_vae: Arc<TinyVae>,
    /// Any model can be used with them. None without folders of add-ons.
    pub(super) upscalers: Option<Arc<UpscalerFolder>>,
}

impl Model {
    /// Opens the model at `path`, or the built-in one. `add_ons` is left aside where the model takes none.
    pub fn open(path: Option<&Path>, add_ons: Option<AddOnFolders>) -> Result<Self, ModelError> {
        let (files, tokenizer) = ModelFiles::open(path)?;
        let description = ModelDescription::new(&files, &tokenizer)?;
        let tokenizer = Arc::new(tokenizer);
        let text_encoder = files.part(ModelPart::TextEncoder);
        let hidden_layers = text_encoder.map(HiddenLayers::find).transpose()?.flatten();
        let table = text_encoder.map(embedding_table).transpose()?.flatten();
        let takes_add_ons =
            files.part(ModelPart::UNet).is_some_and(PartFiles::takes_our_graph) && table.is_some();
        let (known, width) = table.unwrap_or_default();
        let added = text_encoder.filter(|_| table.is_some()).map(|files| files.added_rows(known));
        let vocabulary = Vocabulary {
            known: u32::try_from(known).unwrap_or(0),
            added: added.transpose()?.flatten().map(Arc::new),
        };
        let wildcards = add_ons
            .as_ref()
            .map(|folders| Arc::new(WildcardFolder::new(folders.wildcards.clone(), folders.look_every)) as _);
        let upscalers = add_ons
            .as_ref()
            .map(|folders| Arc::new(UpscalerFolder::new(folders.upscalers.clone(), folders.look_every)));
        let tiny_folder = add_ons.as_ref().map(|folders| (folders.tiny_vaes.clone(), folders.look_every));
        let tiny_vae = Arc::new(TinyVae::find(&files, tiny_folder));
        let add_ons = add_ons
            .filter(|_| takes_add_ons)
            .map(|folders| AddOns::new(folders, Arc::clone(&tokenizer), width));
        let textual_inversions = add_ons.as_ref().map(|add_ons| Arc::clone(&add_ons.textual_inversions));
        let (scheduler, spacing) = description.default_scheduler;
        let (guidance_rescale, guidance_end) = description.default_guidance;
        let rules = InputRules {
            grid: description.grid,
            scheduler,
            spacing,
            guidance_rescale,
            guidance_end,
            loras: add_ons.as_ref().map(|add_ons| Arc::clone(&add_ons.loras) as _),
            controlnets: add_ons
                .as_ref()
                .filter(|_| !edits_images(&files) && !description.embeds_guidance)
                .map(|add_ons| Arc::clone(&add_ons.controlnets) as _),
            upscalers: upscalers.as_ref().map(|folder| Arc::clone(folder) as _),
            tiny_vae: Some(Arc::clone(&tiny_vae) as _),
            takes_images: files.part(ModelPart::VaeEncoder).is_some(),
            precisions: if add_ons.is_some() { &Precision::ALL } else { &[Precision::Full] },
            max_cache_interval: if reuses_features(&files)? { MAX_CACHE_INTERVAL } else { 1 },
            edits_images: edits_images(&files),
            embeds_guidance: description.embeds_guidance,
            max_clip_skip: hidden_layers.as_ref().map_or(1, HiddenLayers::max_clip_skip),
            wildcards,
            prompts: Some(Arc::new(ChunkCheck::new(Arc::clone(&tokenizer), textual_inversions))),
        };
        Ok(Self {
            files: Arc::new(files),
            description: Arc::new(description),
            tokenizer,
            hidden_layers,
            vocabulary,
            rules,
            takes_add_ons,
            add_ons,
            tiny_vae,
            upscalers,
        })
    }

    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Where it was opened, if it is not the one inside the binary.
    pub fn path(&self) -> Option<&Path> {
        self.files.place.path()
    }

    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// What its files hold and nothing reads.
    pub fn unread(&self) -> &Unread {
        &self.files.unread
    }

    /// The weights that are infinite or no numbers: their names in their file, and how many of their values are not. Reads
    /// all weights.
    pub fn broken_weights(&self) -> Result<Vec<(String, usize)>, ModelError> {
        let mut broken = Vec::new();
        for files in self.files.parts() {
            broken.extend(files.broken_weights()?);
        }
        Ok(broken)
    }

    /// What requests may ask of it.
    pub fn rules(&self) -> &InputRules {
        &self.rules
    }

    /// Whether it can take LoRAs and textual inversions.
    pub fn takes_add_ons(&self) -> bool {
        self.takes_add_ons
    }

    /// Estimates how much of the device's memory the model takes, without loading it.
    pub fn memory_needs(&self, device: &Device) -> Result<MemoryNeeds, ModelError> {
        Ok(MemoryNeeds::from_files(&self.files, device)?)
    }

    /// Whether it has a safety checker that can be used, or why not.
    pub fn safety_checker(&self) -> Result<(), &str> {
        match (self.files.part(ModelPart::SafetyChecker), &self.files.checker_fault) {
            (Some(_), _) => Ok(()),
            (None, Some(fault)) => Err(fault),
            (None, None) => Err("it has no safety_checker"),
        }
    }

    /// Loads what drawing needs. The safety checker and the tiny VAE are loaded when a request first wants them.
    pub fn load(&self, runtime: &Runtime) -> Result<Pipeline, ModelError> {
        LoadedModel::load(self.clone(), runtime.clone(), |part| {
            ![ModelPart::SafetyChecker, ModelPart::TinyVae].contains(&part)
        })?
        .into_pipeline()
    }

    /// Whether it has a tiny VAE that can be used, or the end of a sentence that says why not.
    pub fn tiny_vae(&self) -> Result<Option<String>, String> {
        Ok(self.tiny_vae.file()?.file.map(|file| file.name))
    }

    /// Loads every part, to be looked at before it becomes a pipeline.
    pub fn load_graphs(&self, runtime: &Runtime) -> Result<LoadedModel, ModelError> {
        LoadedModel::load(self.clone(), runtime.clone(), |_| true)
    }

    pub(super) fn lora_targets(&self) -> Result<Vec<Target>, ModelError> {
        Ok(self.files.lora_targets()?.unwrap_or_default())
    }
}

/// Whether its UNet takes the latents of a picture to change beside its own.
fn edits_images(files: &ModelFiles) -> bool {
    let by_weights = files.part(ModelPart::UNet).and_then(PartFiles::unet_channels);
    let by_config = || files.configs.unet.as_ref().and_then(UNetConfig::channels);
    by_weights.or_else(by_config) == Some(EDITING_CHANNELS)
}

/// Whether the outer layers of its UNet can run alone.
fn reuses_features(files: &ModelFiles) -> Result<bool, ModelError> {
    // The same in every build.
    let graph = files.part(ModelPart::UNet).map(|unet| unet.shallow_graph(GraphBuild::Cpu)).transpose()?;
    Ok(graph.flatten().is_some())
}

/// Rows and width of the text encoder's table of embeddings, where its weights are not inside its own graph.
fn embedding_table(text_encoder: &PartFiles) -> Result<Option<(usize, usize)>, ModelError> {
    // The same in every build.
    let PartGraph::Weightless(graph) = text_encoder.graph(GraphBuild::Cpu)? else { return Ok(None) };
    Ok(match graph.shape(TOKEN_EMBEDDING) {
        Some(&[vocabulary, width]) => Some((vocabulary, width)),
        _ => None,
    })
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Model").field(&self.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::time::Duration;

    use safetensors::SafeTensors;

    use super::*;
    use crate::diffusion::files::reads;
    use crate::domain::{GenerationInput, ImageSize, Lora, LoraOrigin};
    use crate::runtime::DeviceChoice;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");
    const NAMES: &str = include_str!("../../../tests/golden/ldm_names.json");

    /// Writes tiny-sd as a checkpoint in one file, with its VAE in a file beside it once more.
    fn write_checkpoint(path: &Path) {
        let names: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(NAMES).unwrap();
        let file = |part: &str| match part {
            "text_encoder" => "model.fp16.safetensors",
            _ => "diffusion_pytorch_model.fp16.safetensors",
        };
        let parts = ["text_encoder", "unet", "vae"]
            .map(|part| (part, fs::read(format!("{ROOT}/models/tiny-sd/{part}/{}", file(part))).unwrap()));
        let mut tensors = Vec::new();
        for (part, bytes) in &parts {
            for (name, tensor) in SafeTensors::deserialize(bytes).unwrap().tensors() {
                tensors.push((names["tiny-sd"][&format!("{part}/{name}")].clone(), tensor));
            }
        }
        safetensors::serialize_to_file(tensors, None, path).unwrap();
        fs::write(path.with_extension("vae.safetensors"), &parts[2].1).unwrap();
    }

    fn draw_with_a_lora(pipeline: &mut Pipeline) {
        let lora = Lora {
            name: "kohya".to_owned(),
            unet: 1.0,
            text_encoder: 1.0,
            blocks: None,
            origin: LoraOrigin::Field,
        };
        let input = GenerationInput {
            size: ImageSize { width: 64, height: 64 },
            num_inference_steps: 1,
            loras: vec![lora],
            ..GenerationInput::new("a fox")
        };
        pipeline.draw(&input, 1).unwrap();
    }

    #[test]
    fn every_file_of_a_model_is_read_once_however_often_it_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("fox.safetensors");
        write_checkpoint(&checkpoint);
        let diffusers = format!("{ROOT}/models/tiny-sd");
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        for (path, headers) in [(None, 4), (Some(checkpoint.as_path()), 2), (Some(Path::new(&diffusers)), 4)]
        {
            reads::take();
            let add_ons = AddOnFolders {
                loras: format!("{ROOT}/tests/golden/lora").into(),
                controlnets: "/nowhere".into(),
                embeddings: "/nowhere".into(),
                wildcards: "/nowhere".into(),
                upscalers: "/nowhere".into(),
                tiny_vaes: "/nowhere".into(),
                lora_memory: 0,
                look_every: Duration::from_mins(1),
            };
            let model = Model::open(path, Some(add_ons)).unwrap();
            for _ in 0..2 {
                model.memory_needs(&Device::Cpu).unwrap();
                draw_with_a_lora(&mut model.load(&runtime).unwrap());
            }
            let (loras, files): (Vec<_>, Vec<_>) =
                reads::take().into_iter().partition(|(file, _)| file.starts_with("kohya.safetensors"));
            assert_eq!(loras[0].1, 2, "a LoRA is read each time that it is merged");
            assert!(files.iter().all(|(_, times)| *times == 1), "{path:?}: {files:?}");
            let ends = |end: &str| files.iter().filter(|(file, _)| file.ends_with(end)).count();
            assert_eq!((ends(" bytes"), ends("unet/config.json"), ends("vocab.json")), (headers, 1, 1));
        }
    }
}
