//! Everything that a model's files say, read once, apart from the weights themselves.

use std::collections::BTreeMap;
use std::path::Path;

use super::{FileError, ModelConfigs, ModelPlace, PartFiles, Target, refusal};
use crate::diffusion::text::{Tokenizer, TokenizerFiles};
use crate::domain::ModelPart;

pub struct ModelFiles {
    pub place: ModelPlace,
    pub configs: ModelConfigs,
    parts: BTreeMap<ModelPart, PartFiles>,
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
        let parts = PartFiles::find_all(&place)?;
        let tokenizer = tokenizer(&place)?;
        Ok((Self { place, configs, parts }, tokenizer))
    }

    /// The files of `part`, where the model has it.
    pub fn part(&self, part: ModelPart) -> Option<&PartFiles> {
        self.parts.get(&part)
    }

    /// The files of every part that the model has.
    pub fn parts(&self) -> impl Iterator<Item = &PartFiles> {
        self.parts.values()
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

fn tokenizer(place: &ModelPlace) -> Result<Tokenizer, FileError> {
    let read = |file: &str| place.read(&format!("tokenizer/{file}"));
    let (vocab, merges) = (read("vocab.json")?, read("merges.txt")?);
    let (config, special_tokens_map) = (read("tokenizer_config.json")?, read("special_tokens_map.json")?);
    let tokenizer_json = read("tokenizer.json")?;
    Ok(Tokenizer::new(TokenizerFiles {
        vocab: vocab.as_deref(),
        merges: merges.as_deref(),
        config: config.as_deref(),
        special_tokens_map: special_tokens_map.as_deref(),
        tokenizer_json: tokenizer_json.as_deref(),
    })?)
}
