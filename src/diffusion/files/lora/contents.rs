//! What a LoRA's file holds: its tensors by module, the words that it brings along, and what is neither.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;

use super::super::{TensorFile, quoted_name};
use super::keys::Key;
use super::modules::ModuleNames;
use super::numbered::{self, Numbered};
use super::role::{Role, Tensors};
use crate::diffusion::text::Learned;
use crate::domain::{ModelFamily, ModelPart};

/// How the first trainer marks the vectors of a word, in the metadata under the word.
const EMBEDDING: &str = "<embed>";
/// The most vectors of a word: the text encoder's window.
const MOST_VECTORS: usize = 75;

#[derive(Debug, Default)]
pub struct Contents {
    pub modules: BTreeMap<String, Tensors>,
    /// Words for prompts, with the tensors of their vectors.
    pub words: Vec<(String, String)>,
    pub unknown: Vec<String>,
}

impl Contents {
    /// The error is the end of the sentence "the LoRA cannot be used: …".
    pub fn read(file: &TensorFile, names: &ModuleNames) -> Result<Self, String> {
        let mut contents = Self::default();
        let mut numbered: BTreeMap<ModelPart, Numbered> = BTreeMap::new();
        for name in file.tensor_names() {
            if let Some(family) = ModelFamily::from_lora_tensor(&name) {
                return Err(format!(
                    "it is for {family}, judging by its tensor {}; this is a Stable Diffusion v1 model",
                    quoted_name(&name)
                ));
            }
            if file.note(&name) == Some(EMBEDDING) {
                contents.words.push((name.clone(), name));
                continue;
            }
            let (tensors, role) = match Key::read(&name) {
                Key::Foreign(kind) => {
                    return Err(format!(
                        "it is {kind}, judging by its tensor {}; stablehand does not merge that kind",
                        quoted_name(&name)
                    ));
                }
                Key::Unknown => {
                    contents.unknown.push(name);
                    continue;
                }
                Key::Word(word) => {
                    contents.words.push((word, name));
                    continue;
                }
                Key::Module { module, role } => (contents.modules.entry(module).or_default(), role),
                Key::Numbered { part, number, role } => {
                    (numbered.entry(part).or_default().entry(number).or_default(), role)
                }
            };
            if let Some(other) = tensors.insert(role, name.clone()) {
                let (one, other) = (quoted_name(&other), quoted_name(&name));
                return Err(format!("its tensors {one} and {other} are two of the same"));
            }
        }
        for (part, numbered) in numbered {
            let modules = numbered::modules(part, &numbered, file, names)?;
            for (number, tensors) in numbered {
                let Some(module) = modules.get(number) else { continue };
                contents.modules.insert(format!("{part}.{}", module.path), tensors);
            }
        }
        contents.leave_plain_weights_out();
        Ok(contents)
    }

    /// A tensor that is just called `weight` is (IA)³ only with `on_input` beside it.
    fn leave_plain_weights_out(&mut self) {
        let is_plain = |tensors: &Tensors| {
            tensors.contains_key(&Role::Channels) && !tensors.contains_key(&Role::OnInput)
        };
        for tensors in self.modules.values_mut().filter(|tensors| is_plain(tensors)) {
            self.unknown.extend(tensors.remove(&Role::Channels));
        }
        self.modules.retain(|_, tensors| !tensors.is_empty());
    }

    /// The width of the text embeddings that the LoRA's model reads, if it changes how they are read.
    pub fn text_width(&self, file: &TensorFile) -> Option<usize> {
        let reads_text =
            |module: &str| module.contains("attn2") && (module.ends_with("to_k") || module.ends_with("to_v"));
        let width = |tensors: &Tensors| {
            let (role, axis) = [(Role::Down, 1), (Role::Diff, 1), (Role::Hada1B, 1)]
                .into_iter()
                .find(|(role, _)| tensors.contains_key(role))?;
            file.shape(&tensors[&role])?.get(axis).copied()
        };
        self.modules.iter().filter(|(module, _)| reads_text(module)).find_map(|(_, tensors)| width(tensors))
    }
}

/// The words, with their vectors for a model whose vectors are `width` wide. A word that cannot be used says so when a
/// prompt has it.
pub fn learned(
    words: &[(String, String)],
    lora: &str,
    hash: &str,
    file: &TensorFile,
    width: Option<usize>,
) -> Vec<Learned> {
    let mut seen = BTreeSet::new();
    let first_of_its_word = words.iter().filter(|(word, _)| seen.insert(word.as_str()));
    first_of_its_word
        .map(|(word, tensor)| {
            let vectors = vectors(file, tensor, width).map_err(|reason| {
                format!("The word {} of the LoRA {lora} cannot be used: {reason}.", quoted_name(word))
            });
            Learned { names: vec![word.clone()], hash: hash.to_owned(), vectors }
        })
        .collect()
}

fn vectors(file: &TensorFile, tensor: &str, width: Option<usize>) -> Result<Array2<f32>, String> {
    let (shape, quoted) = (file.shape(tensor).unwrap_or_default(), quoted_name(tensor));
    let (count, found) = match *shape {
        [found] => (1, found),
        [count, found] => (count, found),
        _ => return Err(format!("its tensor {quoted} has the shape {shape:?} instead of [vectors, width]")),
    };
    if let Some(width) = width.filter(|width| *width != found) {
        return Err(format!("its vectors are {found} wide; this model's are {width}"));
    }
    if !(1..=MOST_VECTORS).contains(&count) {
        return Err(format!("it has {count} vectors; a prompt takes from 1 to {MOST_VECTORS}"));
    }
    let values = file.values(tensor).map_err(|error| error.to_string())?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(format!("its tensor {quoted} has values that are NaN or infinite"));
    }
    Array2::from_shape_vec((count, found), values).map_err(|_| format!("its tensor {quoted} is cut off"))
}
