//! ControlNets on the device, and a cache of them.
//!
//! A generation holds its ControlNets until it ends. Then they are kept for further jobs, up to a limit, until their memory
//! is needed; the least recently used is dropped first. Loading them takes seconds, so a server does it beside its jobs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Instant, SystemTime};

use super::DiffusionError;
use super::add_ons::AddOns;
use super::memory::weight_bytes;
use super::model::Model;
use crate::diffusion::files::{AddOnFile, ControlNetError, ControlNetFile, ControlNetFolder};
use crate::diffusion::nets::{ControlNet, ModelError, PartSession};
use crate::domain::ModelPart;
use crate::runtime::Runtime;

/// The file as it was.
type Key = (String, Option<SystemTime>, u64);

/// A ControlNet on the device.
pub struct LoadedControlNet {
    key: Key,
    pub(super) net: Mutex<ControlNet>,
    /// Whether what it gives is averaged over the picture.
    pub(super) averages: bool,
    /// Its weights, with what a usual call takes.
    bytes: u64,
    usual_call: u64,
    /// What its session keeps between two calls.
    kept: AtomicU64,
}

impl LoadedControlNet {
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The bytes of its memory, with what its session keeps between two calls.
    pub fn held(&self) -> u64 {
        self.bytes + self.kept.load(Ordering::Relaxed).saturating_sub(self.usual_call)
    }

    /// Its session keeps what a call took that needed so many bytes. 0: it has given everything back.
    pub(super) fn keeps(&self, taken: u64) {
        match taken {
            0 => self.kept.store(0, Ordering::Relaxed),
            _ => _ = self.kept.fetch_max(taken, Ordering::Relaxed),
        }
    }
}

/// A ControlNet that is to be loaded.
pub struct LoadControlNet {
    runtime: Runtime,
    key: Key,
    file: ControlNetFile,
    bytes: u64,
    usual_call: u64,
}

impl LoadControlNet {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Loads it. Ends early with an error if `given_up` is true.
    pub fn run(&self, given_up: &AtomicBool) -> Result<LoadedControlNet, DiffusionError> {
        if given_up.load(Ordering::Relaxed) {
            return Err(DiffusionError::GivenUp);
        }
        let started = Instant::now();
        let session = PartSession::load_adjusted(self.file.files(), &self.runtime, &|weights| {
            Ok(self.file.complete(weights)?)
        })?;
        let net = Mutex::new(ControlNet::new(session, &self.runtime)?);
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(controlnet = self.file.name(), bytes = self.bytes, duration_ms, "loaded a ControlNet");
        let Self { bytes, usual_call, .. } = *self;
        let (key, averages) = (self.key.clone(), self.file.averages());
        Ok(LoadedControlNet { key, net, averages, bytes, usual_call, kept: AtomicU64::new(0) })
    }
}

/// A ControlNet of a job: on the device already, or still to be loaded.
pub enum WantedControlNet {
    Ready(Arc<LoadedControlNet>),
    Load(Box<LoadControlNet>),
}

/// Keeps ControlNets, for one model on one device.
pub struct ControlNets {
    model: Model,
    runtime: Runtime,
    folder: Arc<ControlNetFolder>,
    /// The most bytes that unused ones may take.
    limit: u64,
    /// The most recently used is last.
    recent: Vec<(Arc<LoadedControlNet>, Instant)>,
    /// All of them, also those that are only used by generations.
    all: Vec<Weak<LoadedControlNet>>,
}

impl ControlNets {
    pub fn new(model: Model, runtime: Runtime, add_ons: &AddOns) -> Self {
        let (folder, limit) = (Arc::clone(&add_ons.controlnets), add_ons.lora_memory);
        Self { model, runtime, folder, limit, recent: Vec::new(), all: Vec::new() }
    }

    /// The ControlNet of this name. `usual_call` is what a call of it takes.
    pub fn get(&mut self, name: &str, usual_call: u64) -> Result<WantedControlNet, DiffusionError> {
        let refuse = |reason: String| ControlNetError { name: name.to_owned(), reason };
        let file =
            self.folder.file(name).map_err(|sentence| refuse(flat(&sentence))).map_err(ModelError::from)?;
        let AddOnFile { name, modified, bytes, .. } = &file;
        let key = (name.clone(), *modified, *bytes);
        let live = |loaded: &Weak<LoadedControlNet>| loaded.upgrade().filter(|loaded| loaded.key == key);
        if let Some(found) = self.all.iter().find_map(live) {
            self.recent.retain(|(recent, _)| !Arc::ptr_eq(recent, &found));
            self.recent.push((Arc::clone(&found), Instant::now()));
            return Ok(WantedControlNet::Ready(found));
        }
        let unet = self.model.files.part(ModelPart::UNet);
        let unet =
            unet.ok_or_else(|| refuse("the model has no UNet".to_owned())).map_err(ModelError::from)?;
        let file = ControlNetFile::open(&file, unet).map_err(ModelError::from)?;
        let weights = weight_bytes(file.files(), self.runtime.device()).map_err(ModelError::from)?;
        let bytes = weights.unwrap_or(0) + usual_call;
        Ok(WantedControlNet::Load(Box::new(LoadControlNet {
            runtime: self.runtime.clone(),
            key,
            file,
            bytes,
            usual_call,
        })))
    }

    /// The bytes that the session of a ControlNet keeps between two calls, as [`Self::held`] counts them.
    pub(super) fn kept_by(&self, name: &str) -> u64 {
        let named = self.all.iter().filter_map(Weak::upgrade).filter(|loaded| loaded.key.0 == name);
        named.map(|loaded| loaded.kept.load(Ordering::Relaxed)).max().unwrap_or(0)
    }

    /// Keeps one that was loaded.
    pub fn keep(&mut self, loaded: &Arc<LoadedControlNet>) {
        self.all.retain(|other| other.strong_count() > 0);
        if self.all.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(loaded))) {
            return;
        }
        self.all.push(Arc::downgrade(loaded));
        if loaded.bytes <= self.limit {
            self.trim(loaded.bytes);
            self.recent.push((Arc::clone(loaded), Instant::now()));
        }
    }

    /// Drops unused ones, the least recently used first, until they leave `room` bytes of the limit free.
    pub fn trim(&mut self, room: u64) {
        let unused: u64 = self.unused().iter().map(|(bytes, _)| bytes).sum();
        let excess = unused.saturating_sub(self.limit.saturating_sub(room));
        if excess > 0 {
            self.drop_unused(excess);
        }
    }

    /// The bytes of all that are kept or in use.
    pub fn held(&self) -> u64 {
        self.all.iter().filter_map(Weak::upgrade).map(|loaded| loaded.held()).sum()
    }

    /// The bytes of each that nobody uses at the moment, and when it was last used.
    pub fn unused(&self) -> Vec<(u64, Instant)> {
        let unused = self.recent.iter().filter(|(loaded, _)| Arc::strong_count(loaded) == 1);
        unused.map(|(loaded, used_at)| (loaded.held(), *used_at)).collect()
    }

    /// Drops unused ones, the least recently used first, until that many bytes are free. Returns how many are.
    pub fn drop_unused(&mut self, bytes: u64) -> u64 {
        let mut freed = 0;
        self.recent.retain(|(loaded, _)| {
            let leaves = freed < bytes && Arc::strong_count(loaded) == 1;
            if leaves {
                freed += loaded.held();
            }
            !leaves
        });
        self.all.retain(|loaded| loaded.strong_count() > 0);
        freed
    }
}

/// A sentence as the end of another one.
fn flat(sentence: &str) -> String {
    sentence.trim_end_matches('.').to_owned()
}
