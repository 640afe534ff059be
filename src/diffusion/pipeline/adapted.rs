//! Copies of a model with LoRAs merged in, for ControlNets or in int8, and a cache of them.
//!
//! A combination of LoRAs gets its own copy of the parts that it changes (`merge.rs`). A generation holds its copy until
//! it ends. Then the copy is kept for further jobs, up to a limit, until its memory is needed; the least recently used
//! is dropped first. A UNet that takes what ControlNets give is such a copy too, and so is one in int8; on a CPU they read
//! the weights of the model's own UNet where no LoRA changes them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::DiffusionError;
use super::add_ons::AddOns;
use super::deep_features::Depth;
use super::merge::{Combination, Merge, Merged, Wanted};
use super::model::Model;
use super::prepared::Copy;
use crate::diffusion::files::{LoraFolder, ModuleNames};
use crate::diffusion::nets::{TextEncoder, UNet, UNetForm};
use crate::diffusion::text::Learned;
use crate::domain::Lora;
use crate::runtime::Runtime;

/// The parts of a model that a combination of LoRAs changes.
pub struct Adapted {
    pub(super) text_encoder: Option<Mutex<TextEncoder>>,
    pub(super) unet: Option<Mutex<UNet>>,
    hashes: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    words: Vec<Learned>,
    /// The memory that its parts take, with that of a usual call.
    bytes: u64,
    /// What a usual UNet call takes.
    usual_unet_call: u64,
    /// The bytes that its UNet keeps between two calls, for each [`Depth`].
    pub(super) unet_keeps: [AtomicU64; Depth::ALL.len()],
}

impl Adapted {
    /// The LoRAs with the first digits of their files' hashes, as A1111 writes them.
    pub(super) fn hashes(&self) -> &[(String, String)] {
        &self.hashes
    }

    /// The LoRAs of which the model lacks something, with what that is.
    pub(super) fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// The words for prompts that the LoRAs bring along.
    pub(super) fn words(&self) -> &[Learned] {
        &self.words
    }

    /// The bytes of its memory, with what its UNet keeps between two calls.
    pub fn held(&self) -> u64 {
        self.bytes + self.kept_by_unet().saturating_sub(self.usual_unet_call)
    }

    fn kept_by_unet(&self) -> u64 {
        self.unet_keeps.iter().map(|keeps| keeps.load(Ordering::Relaxed)).sum()
    }
}

/// Keeps adapted parts, for one model on one device.
pub struct AdaptedModels {
    model: Model,
    runtime: Runtime,
    loras: Arc<LoraFolder>,
    /// The most bytes that unused copies may take.
    limit: u64,
    /// Read when it is first needed.
    names: Option<ModuleNames>,
    /// The most recently used is last.
    recent: Vec<Recent>,
    /// All copies, also those that are only used by generations.
    all: Vec<(Combination, Weak<Adapted>)>,
    /// The UNet that requests with these LoRAs draw with, in each form. The most recently asked for is last.
    seen: Vec<((Vec<Lora>, UNetForm), SeenUNet)>,
}

/// The UNet that requests with some LoRAs draw with. None: the model's own.
type SeenUNet = Option<Combination>;

/// Whose calls a request's UNet calls are. Requests with equal ones share a session.
#[derive(Debug, PartialEq)]
pub(super) enum UNetOf<'a> {
    Model,
    Copy(&'a Combination),
    /// Nobody has looked at these LoRAs yet.
    Unknown(&'a [Lora], UNetForm),
}

/// Sets of LoRAs whose UNet is remembered: far more than jobs wait or draw at a time.
const MOST_SEEN: usize = 64;

struct Recent {
    combination: Combination,
    adapted: Arc<Adapted>,
    used_at: Instant,
}

impl Recent {
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.adapted) == 1
    }
}

impl AdaptedModels {
    pub fn new(model: Model, runtime: Runtime, add_ons: &AddOns) -> Self {
        let (loras, limit) = (Arc::clone(&add_ons.loras), add_ons.lora_memory);
        Self {
            model,
            runtime,
            loras,
            limit,
            names: None,
            recent: Vec::new(),
            all: Vec::new(),
            seen: Vec::new(),
        }
    }

    /// The parts with these LoRAs merged in, or what is to be done for them. None if the model itself is used. `form` is how
    /// the request's UNet differs from `own`, the model's.
    pub fn get(
        &mut self,
        loras: &[Lora],
        (form, own): (UNetForm, &UNet),
        usual_unet_call: u64,
    ) -> Result<Copy, DiffusionError> {
        let wanted = Wanted::of(loras, &self.loras)?;
        if wanted.is_empty() && form.is_usual() {
            self.see(loras, form, None);
            return Ok(Copy::Ready(None));
        }
        let combination = Wanted::combination(&wanted, form);
        if let Some(place) = self.recent.iter().position(|recent| recent.combination == combination) {
            let kept = Recent { used_at: Instant::now(), ..self.recent.remove(place) };
            let adapted = Arc::clone(&kept.adapted);
            self.recent.push(kept);
            self.trim(0);
            self.see(loras, form, adapted.unet.is_some().then_some(combination));
            return Ok(Copy::Ready(Some(adapted)));
        }
        let names = match self.names.take() {
            Some(names) => names,
            None => ModuleNames::new(self.model.lora_targets()?),
        };
        let names = self.names.insert(names);
        let merge = Merge::new(&self.model, &self.runtime, names, wanted, (form, own), usual_unet_call)?;
        self.see(loras, form, merge.changes_unet().then_some(combination));
        Ok(Copy::Merge(Box::new(merge)))
    }

    /// Keeps what was merged.
    pub fn keep(&mut self, merged: Merged) -> Arc<Adapted> {
        let Merged { combination, text_encoder, unet, hashes, skipped, words, bytes, usual_unet_call } =
            merged;
        let adapted = Arc::new(Adapted {
            text_encoder: text_encoder.map(Mutex::new),
            unet: unet.map(Mutex::new),
            hashes,
            skipped,
            words,
            bytes,
            usual_unet_call,
            unet_keeps: Default::default(),
        });
        self.all.retain(|(_, copy)| copy.strong_count() > 0);
        self.all.push((combination.clone(), Arc::downgrade(&adapted)));
        if bytes <= self.limit {
            self.trim(bytes);
            let used_at = Instant::now();
            self.recent.push(Recent { combination, adapted: Arc::clone(&adapted), used_at });
        }
        adapted
    }

    /// Drops unused copies, the least recently used first, until they leave `room` bytes of the limit free.
    pub fn trim(&mut self, room: u64) {
        let unused: u64 = self.unused().iter().map(|(bytes, _)| bytes).sum();
        let excess = unused.saturating_sub(self.limit.saturating_sub(room));
        if excess > 0 {
            self.drop_unused(excess);
        }
    }

    /// Notes which UNet requests with these LoRAs draw with.
    fn see(&mut self, loras: &[Lora], form: UNetForm, unet: SeenUNet) {
        self.seen.retain(|((seen, of), _)| seen != loras || *of != form);
        if self.seen.len() >= MOST_SEEN {
            self.seen.remove(0);
        }
        self.seen.push(((loras.to_vec(), form), unet));
    }

    /// The UNet that a request with these LoRAs draws with.
    pub(super) fn unet_of<'a>(&'a self, loras: &'a [Lora], form: UNetForm) -> UNetOf<'a> {
        let is_it = |(seen, of): &(Vec<Lora>, UNetForm)| seen == loras && *of == form;
        match self.seen.iter().find(|(seen, _)| is_it(seen)) {
            Some((_, None)) => UNetOf::Model,
            Some((_, Some(combination))) => UNetOf::Copy(combination),
            None => UNetOf::Unknown(loras, form),
        }
    }

    /// The bytes that the UNet of a combination's copy keeps between two calls, as [`Self::held`] counts them.
    pub(super) fn kept_by(&self, combination: &Combination) -> u64 {
        let copies = self.all.iter().filter(|(of, _)| of == combination);
        copies.filter_map(|(_, copy)| copy.upgrade()).map(|copy| copy.kept_by_unet()).max().unwrap_or(0)
    }

    /// The bytes of all copies that are kept or in use.
    pub fn held(&self) -> u64 {
        self.all.iter().filter_map(|(_, copy)| copy.upgrade()).map(|copy| copy.held()).sum()
    }

    /// The bytes of each copy that nobody uses at the moment, and when it was last used.
    pub fn unused(&self) -> Vec<(u64, Instant)> {
        let unused = self.recent.iter().filter(|recent| recent.is_unused());
        unused.map(|recent| (recent.adapted.held(), recent.used_at)).collect()
    }

    /// Drops unused copies, the least recently used first, until that many bytes are free. Returns how many are.
    pub fn drop_unused(&mut self, bytes: u64) -> u64 {
        let mut freed = 0;
        self.recent.retain(|recent| {
            let leaves = freed < bytes && recent.is_unused();
            if leaves {
                freed += recent.adapted.held();
            }
            !leaves
        });
        self.all.retain(|(_, copy)| copy.strong_count() > 0);
        freed
    }
}
