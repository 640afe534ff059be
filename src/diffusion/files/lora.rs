//! LoRAs and their kin: small files that change a model's weights.
//!
//! The whole file is checked before anything changes: whether it is a LoRA for this model at all ([`ModelFamily`]), which
//! modules it changes and how ([`contents`]), and whether its tensors fit them ([`module`], with a file for each kind).
//! [`merge_loras`] then changes one parameter at a time: every LoRA computes its change from the model's own values, the
//! changes are added up in single precision, and the sum is written once. So the order of LoRAs does not matter, for kinds
//! that multiply a weight either. This module does not know what holds the weights, only that it can read and replace them
//! ([`Parameters`]).

mod channels;
mod contents;
mod dora;
mod foreign;
mod glora;
mod hadamard;
mod keys;
mod kronecker;
mod low_rank;
mod module;
mod modules;
mod numbered;
mod oft;
mod peft_config;
mod peft_oft;
mod role;
mod rotation;
mod skipped;
mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::contents::{Contents, learned};
use self::keys::Key;
use self::module::Module;
pub use self::modules::{ModuleNames, Target};
use self::peft_config::PeftConfig;
use self::role::Role;
use self::skipped::{Skipped, first_few};
use super::textual_inversion::short_hash;
use super::{Parameters, TensorFile};
use crate::diffusion::text::Learned;
use crate::domain::{LoraScales, ModelFamily, ModelPart};

/// Why a LoRA cannot be used. Names the LoRA and, where one tensor is the reason, that tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the LoRA {name} cannot be used: {reason}")]
pub struct LoraError {
    pub name: String,
    pub reason: String,
}

/// A LoRA that fits a model.
pub struct LoraFile {
    name: String,
    path: PathBuf,
    file: TensorFile,
    modules: Vec<Module>,
    /// Words for prompts, with the tensors of their vectors.
    words: Vec<(String, String)>,
    embedding_width: Option<usize>,
    skipped: Skipped,
}

impl LoraFile {
    /// Opens the file at `path` and checks that it is a LoRA for the model whose modules are `names`. Skips modules that
    /// the model lacks, with a warning, as long as it has at least one.
    pub fn open(name: &str, path: &Path, names: &ModuleNames) -> Result<Self, LoraError> {
        let refuse = |reason: String| LoraError { name: name.to_owned(), reason };
        let file = TensorFile::open(path).map_err(|error| refuse(error.to_string()))?;
        let peft = PeftConfig::read(path, file.note(PeftConfig::metadata_key())).map_err(refuse)?;
        let mut contents = Contents::read(&file, names).map_err(refuse)?;
        if let Some(reason) = contents.text_width(&file).and_then(|width| other_width(width, names)) {
            return Err(refuse(reason));
        }
        let found = std::mem::take(&mut contents.modules);
        let (mut modules, count) = (Vec::new(), found.len());
        let has_no_config =
            peft.is_missing() && found.values().any(|tensors| !tensors.contains_key(&Role::Alpha));
        let (unknown, of) = (contents.unknown.clone(), count);
        let mut skipped = Skipped { of, tensors: unknown, has_no_config, ..Skipped::default() };
        for (module, tensors) in found {
            match names.find(&module) {
                Some(place) => {
                    let fitted = Module::fit(&module, tensors, place, &file, &peft).map_err(refuse)?;
                    skipped.tensors.extend(fitted.skipped().map(str::to_owned));
                    modules.push(fitted);
                }
                None => skipped.modules.push(module),
            }
        }
        let changes_nothing =
            modules.iter().all(|module: &Module| !module.changes_weight() && !module.changes_bias());
        if changes_nothing && (count > 0 || contents.words.is_empty()) {
            return Err(refuse(match (count, first_few(&skipped.tensors)) {
                (0, few) if few.is_empty() => "it is empty".to_owned(),
                (0, few) => format!("it does not contain a LoRA but tensors such as {few}"),
                (count, _) => {
                    let few = [skipped.modules, skipped.tensors].concat();
                    format!(
                        "this model has none of the {count} modules that it changes, such as {}",
                        first_few(&few)
                    )
                }
            }));
        }
        if let Some(text) = skipped.text() {
            tracing::warn!(
                lora = name,
                "a part of the LoRA has no place in this model and is skipped: {text}"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            file,
            modules,
            words: contents.words,
            embedding_width: names.embedding_width(),
            skipped,
        })
    }

    /// Whether it changes any parameter of `part` at these scales.
    pub fn touches(&self, part: ModelPart, scales: &LoraScales) -> bool {
        self.modules_of(part).any(|module| scales.of(module.place.block, part) != 0.0)
    }

    /// The words for prompts that it brings along, with the file's hash. Reads their vectors from the file.
    pub fn words(&self, hash: &str) -> Vec<Learned> {
        learned(&self.words, &self.name, hash, &self.file, self.embedding_width)
    }

    /// What of it has no place in the model, in a few words. None where all of it has.
    pub fn skipped(&self) -> Option<String> {
        self.skipped.text()
    }

    /// The first digits of the file's hash: the hash that its trainer noted (`sshs_model_hash`), else that of everything
    /// after the header, which is what trainers hash.
    pub fn short_hash(&self) -> String {
        let noted = self.file.note("sshs_model_hash");
        let noted =
            noted.filter(|hash| hash.len() >= 12 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()));
        noted.map_or_else(|| short_hash(&self.path, self.file.data_start()), |hash| hash[..12].to_owned())
    }

    fn modules_of(&self, part: ModelPart) -> impl Iterator<Item = &Module> {
        self.modules.iter().filter(move |module| module.place.part == part)
    }

    fn refuse(&self, reason: String) -> LoraError {
        LoraError { name: self.name.clone(), reason }
    }
}

/// A parameter's part of a module.
#[derive(Clone, Copy)]
enum Side {
    Weight,
    Bias,
}

/// Adds LoRAs, each with its scales, to the weights and biases of `part`. Every change is computed from the part's own
/// values.
pub fn merge_loras(
    loras: &[(&LoraFile, &LoraScales)],
    part: ModelPart,
    parameters: &mut dyn Parameters,
) -> Result<(), LoraError> {
    let mut changes: BTreeMap<String, Vec<(&LoraFile, &Module, Side, f32)>> = BTreeMap::new();
    for (lora, scales) in loras {
        for module in lora.modules_of(part) {
            let scale = scales.of(module.place.block, part);
            if scale == 0.0 {
                continue;
            }
            if module.changes_weight() {
                let changes = changes.entry(module.place.weight_name()).or_default();
                changes.push((lora, module, Side::Weight, scale));
            }
            if module.changes_bias() {
                changes.entry(module.place.bias_name()).or_default().push((lora, module, Side::Bias, scale));
            }
        }
    }
    for (parameter, changes) in changes {
        let Some((first, ..)) = changes.first() else { continue };
        let refuse = |reason: String| first.refuse(reason);
        let original = parameters.values(&parameter).map_err(refuse)?;
        let mut sum = original.clone();
        for (lora, module, side, scale) in &changes {
            let delta = match side {
                Side::Weight => module.delta(&lora.file, &original, *scale),
                Side::Bias => module.delta_of_bias(&lora.file, &original, *scale),
            };
            let delta = delta.map_err(|reason| lora.refuse(reason))?;
            if !delta.iter().all(|value| value.is_finite()) {
                return Err(lora.refuse(format!("the values that it adds to {parameter} are not finite")));
            }
            sum.iter_mut().zip(delta).for_each(|(sum, delta)| *sum += delta);
        }
        parameters.replace(&parameter, &sum).map_err(refuse)?;
    }
    for (lora, _) in loras {
        lora.file.check_unchanged().map_err(|error| lora.refuse(error.to_string()))?;
    }
    Ok(())
}

/// What a file with tensors of these names is, as the end of "it is …", if it is a LoRA or of a kind like it.
pub fn lora_kind(names: &[String]) -> Option<String> {
    names.iter().find_map(|name| {
        let role = match Key::read(name) {
            Key::Foreign(kind) => {
                return Some(format!("{kind}, which stablehand does not merge into a model"));
            }
            // Checkpoints have tensors with such ends as well.
            Key::Module { role: Role::Channels | Role::Alpha | Role::Scale | Role::Scalar, .. }
            | Key::Word(_)
            | Key::Unknown => return None,
            Key::Module { role, .. } | Key::Numbered { role, .. } => role,
        };
        Some(format!("{}: put it into --lora-dir and name it in the request's lora", role.owner()))
    })
}

/// Why a LoRA that reads text embeddings of this width is not for the model. None where the widths are equal.
fn other_width(width: usize, names: &ModuleNames) -> Option<String> {
    let own = names.embedding_width().filter(|own| *own != width)?;
    let family = ModelFamily::from_embedding_width(width).map_or("another model", ModelFamily::name);
    Some(format!("it is for {family}, whose text embeddings are {width} wide; this model's are {own}"))
}

#[cfg(test)]
mod tests;
