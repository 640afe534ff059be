//! Everything that a model's files say, read once, apart from the weights themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::checker_fault::checker_fault;
use super::config_expectations::{self, GraphOf};
use super::tiny_vae::tiny_vae_fault;
use super::{FileError, ModelConfigs, ModelPlace, PartFiles, Target, Unread, refusal};
use crate::diffusion::text::{Tokenizer, TokenizerFiles};
use crate::domain::ModelPart;

pub struct ModelFiles {
    pub place: ModelPlace,
    pub configs: ModelConfigs,
    /// What the files hold and nothing here reads.
    pub unread: Unread,
    parts: BTreeMap<ModelPart, PartFiles>,
    /// Why the model's safety checker cannot be used, if it has one that cannot.
    pub checker_fault: Option<String>,
    /// The same of its tiny VAE.
    pub tiny_vae_fault: Option<String>,
}

impl ModelFiles {
    /// Reads the configurations, the tokenizer and the headers of the weights. Refuses what is not a model that works
    /// here.
    pub fn open(path: Option<&Path>) -> Result<(Self, Tokenizer), FileError> {
        let place = ModelPlace::find(path)?;
        let configs = ModelConfigs::read(&place)?;
        if let Some(reason) = refusal::reason_for_folder(&place, &configs) {
            return Err(place.not_a_model(reason));
        }
        let mut parts = PartFiles::find_all(&place)?;
        if let Some(files) = parts.get_mut(&ModelPart::TextEncoder)
            && let Some(layers) = configs.text_encoder.hidden_layers
        {
            files.use_hidden_layers(layers);
        }
        if let Some(reason) = unusable(&place, &configs, &parts) {
            return Err(place.not_a_model(reason));
        }
        let checker_fault =
            parts.get(&ModelPart::SafetyChecker).and_then(|files| checker_fault(&place, files));
        if checker_fault.is_some() {
            parts.remove(&ModelPart::SafetyChecker);
        }
        let tiny = parts.get(&ModelPart::TinyVae);
        let tiny_vae_fault = tiny.and_then(|files| tiny_vae_fault(files, &configs.vae));
        if tiny_vae_fault.is_some() {
            parts.remove(&ModelPart::TinyVae);
        }
        let rows = parts.get(&ModelPart::TextEncoder).and_then(PartFiles::embedding_rows);
        let tokenizer = tokenizer(&place, rows)?;
        let unread = Unread::find(&place, &parts);
        Ok((Self { place, configs, unread, parts, checker_fault, tiny_vae_fault }, tokenizer))
    }

    /// The files of `part`, where the model has it.
    pub fn part(&self, part: ModelPart) -> Option<&PartFiles> {
        self.parts.get(&part)
    }

    /// The files of every part that the model has.
    pub fn parts(&self) -> impl Iterator<Item = &PartFiles> {
        self.parts.values()
    }

    /// Of every part's files: their names and sizes, and when the last of them was written. Files that are changed have
    /// another one.
    pub fn stamp(&self) -> impl fmt::Debug {
        self.parts().map(|files| (files.part(), files.list(), files.modified())).collect::<Vec<_>>()
    }

    /// The weights that LoRAs may change, by name and shape. `None` if the model's own graphs contain the weights.
    pub fn lora_targets(&self) -> Result<Option<Vec<Target>>, FileError> {
        let mut targets = Vec::new();
        for part in ModelPart::ADAPTABLE {
            let Some(found) = self.part(part).map(PartFiles::lora_targets).transpose()?.flatten() else {
                return Ok(None);
            };
            targets.extend(found);
        }
        Ok(Some(targets))
    }
}

/// Why the parts do not draw what the configurations say, if they do not.
fn unusable(
    place: &ModelPlace,
    configs: &ModelConfigs,
    parts: &BTreeMap<ModelPart, PartFiles>,
) -> Option<String> {
    // The others' configurations are inside the binary.
    let ModelPlace::Folder(_) = place else { return None };
    let graph = |part| parts.get(&part).and_then(PartFiles::graph_of).unwrap_or(GraphOf::Export);
    let (unet, vae, text_encoder) =
        (graph(ModelPart::UNet), graph(ModelPart::VaeDecoder), graph(ModelPart::TextEncoder));
    if let Err(reason) = config_expectations::check(configs, unet, vae, text_encoder) {
        return Some(reason);
    }
    let guidance = configs.unet.as_ref().and_then(|unet| unet.guidance_width)?;
    let embeds = parts.get(&ModelPart::UNet).is_some_and(PartFiles::embeds_guidance);
    (unet != GraphOf::Export && !embeds).then(|| {
        format!(
            "its unet/config.json says that time_cond_proj_dim is {guidance}, but its weights have no \
             time_embedding.cond_proj.weight"
        )
    })
}

/// `rows` is how many tokens the text encoder has embeddings for, if that is known.
fn tokenizer(place: &ModelPlace, rows: Option<usize>) -> Result<Tokenizer, FileError> {
    let read = |file: &str| place.read(&format!("tokenizer/{file}"));
    let (vocab, merges) = (read("vocab.json")?, read("merges.txt")?);
    let (config, special_tokens_map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
    let (tokenizer_json, added_tokens) = (read("tokenizer.json")?, read("added_tokens.json")?);
    Ok(Tokenizer::new(TokenizerFiles {
        vocab: vocab.as_deref(),
        merges: merges.as_deref(),
        config: config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
        tokenizer_json: tokenizer_json.as_deref(),
        added_tokens: added_tokens.as_deref(),
        embeddings: rows,
    })?)
}
