//! Making a copy of the model's parts, with LoRAs merged in, for ControlNets or in int8, on whatever thread.
//!
//! It takes seconds, so a server does it beside its jobs. Everything is opened and checked before: a [`Merge`] knows
//! what it will take. Its outcome goes to the thread that draws.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use super::DiffusionError;
use super::memory::{int8_bytes, outer_layers_bytes, weight_bytes};
use super::model::Model;
use crate::diffusion::files::{
    AddOnFile, LoraError, LoraFile, LoraFolder, ModuleNames, Originals, Parameters, PartFiles, Weights,
    merge_loras,
};
use crate::diffusion::nets::{ModelError, PartSession, TextEncoder, UNet, UNetForm};
use crate::diffusion::text::Learned;
use crate::domain::{Lora, LoraScales, ModelPart, Precision};
use crate::runtime::Runtime;

/// What makes a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Combination {
    /// The LoRAs' files as they were, and the scales of each.
    loras: Vec<(String, Option<SystemTime>, u64, Vec<u32>)>,
    unet: UNetForm,
}

/// A LoRA's file and its scales.
pub(super) struct Wanted {
    file: AddOnFile,
    scales: LoraScales,
}

/// LoRAs that are to be merged into a model.
pub struct Merge {
    model: Model,
    runtime: Runtime,
    combination: Combination,
    opened: Vec<(LoraFile, Wanted)>,
    /// Whether they change the part.
    text_encoder: bool,
    unet: bool,
    /// The weights that the copy's UNet shares with the model's own.
    shared: Option<Weights>,
    bytes: u64,
    usual_unet_call: u64,
}

/// A model's parts with LoRAs merged into them.
pub struct Merged {
    pub(super) combination: Combination,
    pub(super) text_encoder: Option<TextEncoder>,
    pub(super) unet: Option<UNet>,
    pub(super) hashes: Vec<(String, String)>,
    pub(super) skipped: Vec<(String, String)>,
    pub(super) words: Vec<Learned>,
    pub(super) bytes: u64,
    pub(super) usual_unet_call: u64,
}

impl Wanted {
    /// The LoRAs by name, each file once, so that the order in the request does not matter. Without those of scale 0.
    pub fn of(loras: &[Lora], folder: &LoraFolder) -> Result<Vec<Self>, LoraError> {
        let mut wanted: BTreeMap<String, Self> = BTreeMap::new();
        for lora in loras {
            let file = folder.file(&lora.name);
            let file = file.map_err(|reason| LoraError { name: lora.name.clone(), reason })?;
            let entry = wanted.entry(file.name.clone());
            entry.or_insert(Self { file, scales: LoraScales::default() }).scales.add(lora);
        }
        Ok(wanted.into_values().filter(|wanted| !wanted.scales.is_zero()).collect())
    }

    pub fn combination(wanted: &[Self], unet: UNetForm) -> Combination {
        let of_one =
            |Self { file, scales }: &Self| (file.name.clone(), file.modified, file.bytes, scales.key());
        Combination { loras: wanted.iter().map(of_one).collect(), unet }
    }
}

impl Merge {
    /// Opens the files and checks that they fit the model. Beside the LoRAs is the form of the copy's UNet, and the model's own
    /// UNet. `usual_unet_call` is what the copy's UNet takes while it runs.
    pub(super) fn new(
        model: &Model,
        runtime: &Runtime,
        names: &ModuleNames,
        wanted: Vec<Wanted>,
        (form, own): (UNetForm, &UNet),
        usual_unet_call: u64,
    ) -> Result<Self, DiffusionError> {
        let combination = Wanted::combination(&wanted, form);
        let opened = wanted.into_iter().map(|wanted| {
            let file = LoraFile::open(&wanted.file.name, &wanted.file.path, names)?;
            Ok((file, wanted))
        });
        let opened = opened.collect::<Result<Vec<_>, LoraError>>()?;
        let changes = |part: ModelPart| {
            model.files.part(part).is_some()
                && opened.iter().any(|(file, wanted)| file.touches(part, &wanted.scales))
        };
        let (text_encoder, unet) = (changes(ModelPart::TextEncoder), changes(ModelPart::UNet));
        let shared = own.weights().filter(|_| !unet && !form.is_usual()).cloned();
        let unet = unet || !form.is_usual();
        let mut bytes = if unet { usual_unet_call } else { 0 };
        for (part, _) in ModelPart::ADAPTABLE.into_iter().zip([text_encoder, unet]).filter(|(_, is)| *is) {
            let files = model.files.part(part);
            let weights = files.map(|files| weight_bytes(files, runtime.device())).transpose();
            let weights = weights.map_err(ModelError::from)?.flatten().unwrap_or(0);
            bytes += if part == ModelPart::UNet && shared.is_some() { 0 } else { weights };
        }
        // The build for ControlNets has no outer layers.
        if let Some(files) = model.files.part(ModelPart::UNet).filter(|_| unet && !form.is_controlled) {
            bytes += outer_layers_bytes(files, runtime.device()).map_err(ModelError::from)?;
        }
        if let Some(files) = model.files.part(ModelPart::UNet).filter(|_| form.precision == Precision::Int8) {
            bytes += int8_bytes(files).map_err(ModelError::from)?;
        }
        let (model, runtime) = (model.clone(), runtime.clone());
        Ok(Self { model, runtime, combination, opened, text_encoder, unet, shared, bytes, usual_unet_call })
    }

    /// The bytes of the device's memory that the copy takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same for everything that makes the same copy.
    pub fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.combination.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the copy has a UNet of its own.
    pub(super) fn changes_unet(&self) -> bool {
        self.unet
    }

    /// Merges them. Ends early with an error if `given_up` becomes true.
    pub fn run(self, given_up: &AtomicBool) -> Result<Merged, DiffusionError> {
        let started = Instant::now();
        let merged = self.merge(given_up);
        if given_up.load(Ordering::Relaxed) {
            return Err(DiffusionError::GivenUp);
        }
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            loras = self.opened.len(),
            bytes = self.bytes,
            duration_ms,
            unet = ?self.combination.unet,
            "made a copy of the model"
        );
        merged
    }

    fn merge(&self, given_up: &AtomicBool) -> Result<Merged, DiffusionError> {
        let text_encoder = match self.load(ModelPart::TextEncoder, self.text_encoder, given_up)? {
            Some(session) => {
                let hidden_layers = self.model.hidden_layers.clone();
                Some(TextEncoder::new(session, hidden_layers, self.model.vocabulary.clone())?)
            }
            None => None,
        };
        let unet = self.load(ModelPart::UNet, self.unet, given_up)?;
        let unet = unet.map(|session| UNet::new(session, &self.runtime)).transpose()?;
        let (mut hashes, mut words) = (Vec::new(), Vec::new());
        for (file, wanted) in &self.opened {
            let hash = file.short_hash();
            words.extend(file.words(&hash));
            hashes.push((wanted.file.stem().to_owned(), hash));
        }
        let skipped = self.opened.iter();
        let skipped =
            skipped.filter_map(|(file, wanted)| Some((wanted.file.stem().to_owned(), file.skipped()?)));
        Ok(Merged {
            combination: self.combination.clone(),
            text_encoder,
            unet,
            hashes,
            skipped: skipped.collect(),
            words,
            bytes: self.bytes,
            usual_unet_call: self.usual_unet_call,
        })
    }

    fn load(
        &self,
        part: ModelPart,
        is_changed: bool,
        given_up: &AtomicBool,
    ) -> Result<Option<PartSession>, DiffusionError> {
        let files: Option<&PartFiles> = self.model.files.part(part).filter(|_| is_changed);
        let scaled: Vec<_> = self.opened.iter().map(|(file, wanted)| (file, &wanted.scales)).collect();
        let load = |files: &PartFiles| {
            let adjust = |weights: &mut Weights| {
                let parameters = Originals { weights, files };
                Ok(merge_loras(&scaled, part, &mut Interruptible { parameters, given_up })?)
            };
            match part {
                ModelPart::UNet => {
                    let (form, shared) = (self.combination.unet, self.shared.clone());
                    PartSession::load_unet(files, &self.runtime, form, shared, &adjust)
                }
                _ => PartSession::load_adjusted(files, &self.runtime, &adjust),
            }
        };
        if given_up.load(Ordering::Relaxed) {
            return Err(DiffusionError::GivenUp);
        }
        Ok(files.map(load).transpose()?)
    }
}

/// Parameters that cannot be changed any more once the job has been given up.
struct Interruptible<'a> {
    parameters: Originals<'a>,
    given_up: &'a AtomicBool,
}

impl Parameters for Interruptible<'_> {
    fn values(&self, parameter: &str) -> Result<Vec<f32>, String> {
        match self.given_up.load(Ordering::Relaxed) {
            true => Err("it was given up".to_owned()),
            false => self.parameters.values(parameter),
        }
    }

    fn replace(&mut self, parameter: &str, values: &[f32]) -> Result<(), String> {
        self.parameters.replace(parameter, values)
    }
}
