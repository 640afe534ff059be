//! Copies of a model with LoRAs merged in, and a cache of them.
//!
//! A combination of LoRAs gets its own copy of the parts that it changes. Recent copies are kept within a memory budget,
//! and the least recently used is dropped first. A generation holds its copy until it ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::DiffusionError;
use super::add_ons::AddOns;
use super::memory::weight_bytes;
use super::model::Model;
use crate::diffusion::files::{
    AddOnFile, LoraError, LoraFile, LoraFolder, ModuleNames, Originals, PartFiles, merge_loras,
};
use crate::diffusion::nets::{ModelError, PartSession, TextEncoder, UNet};
use crate::diffusion::text::Learned;
use crate::domain::{Lora, LoraScales, ModelPart};
use crate::runtime::Runtime;

/// The parts of a model that a combination of LoRAs changes.
pub struct Adapted {
    pub text_encoder: Option<RefCell<TextEncoder>>,
    pub unet: Option<RefCell<UNet>>,
    hashes: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    words: Vec<Learned>,
    /// The size of its parts.
    bytes: u64,
}

impl Adapted {
    /// The LoRAs with the first digits of their files' hashes, as A1111 writes them.
    pub fn hashes(&self) -> &[(String, String)] {
        &self.hashes
    }

    /// The LoRAs of which the model lacks something, with what that is.
    pub fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// The words for prompts that the LoRAs bring along.
    pub fn words(&self) -> &[Learned] {
        &self.words
    }
}

/// The files as they were, and the scales of each.
type Combination = Vec<(String, Option<SystemTime>, u64, Vec<u32>)>;

/// Makes and keeps adapted parts, for one model on one device.
pub struct AdaptedModels {
    model: Model,
    runtime: Runtime,
    loras: Arc<LoraFolder>,
    /// In bytes.
    budget: u64,
    /// Read when it is first needed.
    names: Option<ModuleNames>,
    /// The most recently used is last.
    recent: Vec<(Combination, Rc<Adapted>)>,
}

/// A LoRA, its file and its scales.
struct Wanted {
    file: AddOnFile,
    scales: LoraScales,
}

impl AdaptedModels {
    pub fn new(model: Model, runtime: Runtime, add_ons: &AddOns) -> Self {
        let (loras, budget) = (Arc::clone(&add_ons.loras), add_ons.lora_memory);
        Self { model, runtime, loras, budget, names: None, recent: Vec::new() }
    }

    /// The parts with these LoRAs merged in. `None` if all scales are 0, because then the model itself is used.
    pub fn get(&mut self, loras: &[Lora]) -> Result<Option<Rc<Adapted>>, DiffusionError> {
        let wanted = self.wanted(loras)?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let combination: Combination = wanted
            .iter()
            .map(|Wanted { file, scales }| (file.name.clone(), file.modified, file.bytes, scales.key()))
            .collect();
        if let Some(place) = self.recent.iter().position(|(kept, _)| *kept == combination) {
            let kept = self.recent.remove(place);
            let adapted = Rc::clone(&kept.1);
            self.recent.push(kept);
            return Ok(Some(adapted));
        }
        let started = Instant::now();
        let adapted = Rc::new(self.make(&wanted)?);
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            loras = wanted.len(),
            bytes = adapted.bytes,
            duration_ms,
            "merged LoRAs into the model"
        );
        if adapted.bytes <= self.budget {
            self.recent.push((combination, Rc::clone(&adapted)));
        }
        Ok(Some(adapted))
    }

    /// The bytes of all kept copies.
    pub fn held(&self) -> u64 {
        self.recent.iter().map(|(_, adapted)| adapted.bytes).sum()
    }

    /// The LoRAs by name, each file once, so that the order in the request does not matter.
    fn wanted(&self, loras: &[Lora]) -> Result<Vec<Wanted>, LoraError> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for lora in loras {
            let file = self.loras.file(&lora.name);
            let file = file.map_err(|reason| LoraError { name: lora.name.clone(), reason })?;
            let entry = wanted.entry(file.name.clone());
            entry.or_insert(Wanted { file, scales: LoraScales::default() }).scales.add(lora);
        }
        Ok(wanted.into_values().filter(|wanted| !wanted.scales.is_zero()).collect())
    }

    fn make(&mut self, wanted: &[Wanted]) -> Result<Adapted, DiffusionError> {
        let names = match self.names.take() {
            Some(names) => names,
            None => ModuleNames::new(self.model.lora_targets()?),
        };
        let names = self.names.insert(names);
        let opened = wanted.iter().map(|wanted| {
            let file = LoraFile::open(&wanted.file.name, &wanted.file.path, names)?;
            Ok((file, wanted))
        });
        let opened = opened.collect::<Result<Vec<_>, LoraError>>()?;
        let hashes = opened.iter().map(|(file, wanted)| (wanted.file.stem().to_owned(), file.short_hash()));
        let hashes = hashes.collect();
        let skipped =
            opened.iter().filter_map(|(file, wanted)| Some((wanted.file.stem().to_owned(), file.skipped()?)));
        let skipped = skipped.collect();
        let words = opened.iter().flat_map(|(file, _)| file.words().iter().cloned()).collect();
        let changed =
            |part: ModelPart| opened.iter().any(|(file, wanted)| file.touches(part, &wanted.scales));
        let (text_encoder, unet) = (changed(ModelPart::TextEncoder), changed(ModelPart::UNet));
        let files = |part: ModelPart, is_changed: bool| self.model.files.part(part).filter(|_| is_changed);
        let (text_encoder, unet) =
            (files(ModelPart::TextEncoder, text_encoder), files(ModelPart::UNet, unet));
        let mut bytes = 0;
        for part in text_encoder.iter().chain(&unet) {
            bytes += weight_bytes(part, self.runtime.device()).map_err(ModelError::from)?.unwrap_or(0);
        }
        make_room(&mut self.recent, self.budget.saturating_sub(bytes));
        let scaled: Vec<_> = opened.iter().map(|(file, wanted)| (file, &wanted.scales)).collect();
        let load = |files: &PartFiles| {
            PartSession::load_adjusted(files, &self.runtime, &|weights| {
                Ok(merge_loras(&scaled, files.part(), &mut Originals { weights, files })?)
            })
        };
        let text_encoder = match text_encoder {
            Some(files) => {
                let hidden_layers = self.model.hidden_layers.clone();
                Some(TextEncoder::new(load(files)?, hidden_layers, self.model.vocabulary.clone())?)
            }
            None => None,
        };
        let unet = match unet {
            Some(files) => Some(UNet::new(load(files)?, &self.runtime)?),
            None => None,
        };
        Ok(Adapted {
            text_encoder: text_encoder.map(RefCell::new),
            unet: unet.map(RefCell::new),
            hashes,
            skipped,
            words,
            bytes,
        })
    }
}

/// Drops the least recently used until at most `budget` bytes are kept.
fn make_room(recent: &mut Vec<(Combination, Rc<Adapted>)>, budget: u64) {
    while recent.iter().map(|(_, adapted)| adapted.bytes).sum::<u64>() > budget {
        recent.remove(0);
    }
}
