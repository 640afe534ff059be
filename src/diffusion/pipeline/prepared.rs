//! What a job needs besides the model before it can begin: the model's parts with its LoRAs, and its ControlNets.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::adapted::{Adapted, AdaptedModels};
use super::controlnets::{ControlNets, LoadedControlNet, WantedControlNet};
use super::merge::{Merge, Merged};
use super::{DiffusionError, Pipeline};
use crate::domain::GenerationInput;

/// What a job was prepared with.
#[derive(Clone, Default)]
pub struct Prepared {
    /// The model's parts that are not the model's own.
    pub(super) adapted: Option<Arc<Adapted>>,
    /// In the order of the request.
    pub(super) controlnets: Vec<Arc<LoadedControlNet>>,
}

impl Prepared {
    /// The bytes of its memory.
    pub fn held(&self) -> u64 {
        held(self.adapted.as_ref(), &self.controlnets)
    }
}

fn held(adapted: Option<&Arc<Adapted>>, controlnets: &[Arc<LoadedControlNet>]) -> u64 {
    let adapted = adapted.map_or(0, |adapted| adapted.held());
    adapted + distinct(controlnets).map(|loaded| loaded.held()).sum::<u64>()
}

/// Each ControlNet once.
fn distinct(controlnets: &[Arc<LoadedControlNet>]) -> impl Iterator<Item = &Arc<LoadedControlNet>> {
    let is_first =
        |index: usize| !controlnets[..index].iter().any(|other| Arc::ptr_eq(other, &controlnets[index]));
    controlnets.iter().enumerate().filter(move |(index, _)| is_first(*index)).map(|(_, loaded)| loaded)
}

/// What a request needs before it can begin.
pub enum Adaptation {
    /// Nothing more.
    Ready(Prepared),
    /// Something is not made yet.
    Make(Box<Making>),
}

/// What is to be made for a request, and what is there already.
pub struct Making {
    adapted: Copy,
    controlnets: Vec<WantedControlNet>,
}

/// The model's parts with LoRAs, or for ControlNets.
pub(super) enum Copy {
    Ready(Option<Arc<Adapted>>),
    Merge(Box<Merge>),
}

/// What was made for a request, as it comes from another thread.
pub struct Made {
    adapted: Option<Arc<Adapted>>,
    merged: Option<Merged>,
    controlnets: Vec<Arc<LoadedControlNet>>,
}

impl Making {
    /// The bytes of the device's memory that it takes.
    pub fn bytes(&self) -> u64 {
        let copy = match &self.adapted {
            Copy::Ready(_) => 0,
            Copy::Merge(merge) => merge.bytes(),
        };
        let mut keys = Vec::new();
        let mut bytes = copy;
        for wanted in &self.controlnets {
            if let WantedControlNet::Load(load) = wanted
                && !keys.contains(&load.key())
            {
                keys.push(load.key());
                bytes += load.bytes();
            }
        }
        bytes
    }

    /// The bytes of what is there already.
    pub fn ready_bytes(&self) -> u64 {
        let adapted = match &self.adapted {
            Copy::Ready(adapted) => adapted.as_ref(),
            Copy::Merge(_) => None,
        };
        let ready = |wanted: &WantedControlNet| match wanted {
            WantedControlNet::Ready(loaded) => Some(Arc::clone(loaded)),
            WantedControlNet::Load(_) => None,
        };
        let controlnets: Vec<_> = self.controlnets.iter().filter_map(ready).collect();
        held(adapted, &controlnets)
    }

    /// A key for the copy and for each ControlNet that is made: equal for those that are the same.
    pub fn keys(&self) -> Vec<u64> {
        let copy = match &self.adapted {
            Copy::Ready(_) => None,
            Copy::Merge(merge) => Some(merge.key()),
        };
        let of_controlnet = |wanted: &WantedControlNet| match wanted {
            WantedControlNet::Ready(_) => None,
            WantedControlNet::Load(load) => {
                let mut hasher = DefaultHasher::new();
                load.key().hash(&mut hasher);
                Some(hasher.finish())
            }
        };
        copy.into_iter().chain(self.controlnets.iter().filter_map(of_controlnet)).collect()
    }

    /// Makes it. Ends early with an error if `given_up` becomes true.
    pub fn run(self, given_up: &AtomicBool) -> Result<Made, DiffusionError> {
        let (adapted, merged) = match self.adapted {
            Copy::Ready(adapted) => (adapted, None),
            Copy::Merge(merge) => (None, Some(merge.run(given_up)?)),
        };
        let mut loaded: Vec<(_, Arc<LoadedControlNet>)> = Vec::new();
        let mut controlnets = Vec::new();
        for wanted in self.controlnets {
            let load = match wanted {
                WantedControlNet::Ready(ready) => {
                    controlnets.push(ready);
                    continue;
                }
                WantedControlNet::Load(load) => load,
            };
            // A request may name one twice.
            let known =
                loaded.iter().find(|(key, _)| key == load.key()).map(|(_, loaded)| Arc::clone(loaded));
            let controlnet = match known {
                Some(known) => known,
                None => Arc::new(load.run(given_up)?),
            };
            loaded.push((load.key().clone(), Arc::clone(&controlnet)));
            controlnets.push(controlnet);
        }
        Ok(Made { adapted, merged, controlnets })
    }
}

impl Pipeline {
    /// What the request needs before [`Self::begin_with`].
    pub fn adapt(&mut self, input: &GenerationInput) -> Result<Adaptation, DiffusionError> {
        let (usual_unet_call, form) = (self.usual_unet_call(), self.unet_form(input));
        let (Some(adapted), Some(controlnets)) = (&mut self.adapted, &mut self.controlnets) else {
            return Ok(Adaptation::Ready(Prepared::default()));
        };
        let copy = adapted.get(&input.loras, (form, &self.unet), usual_unet_call)?;
        let wanted = input.controlnets.iter().map(|unit| controlnets.get(&unit.model, usual_unet_call));
        let controlnets = wanted.collect::<Result<Vec<_>, _>>()?;
        let ready = |wanted: &WantedControlNet| match wanted {
            WantedControlNet::Ready(ready) => Some(Arc::clone(ready)),
            WantedControlNet::Load(_) => None,
        };
        Ok(match (copy, controlnets.iter().map(ready).collect()) {
            (Copy::Ready(adapted), Some(controlnets)) => Adaptation::Ready(Prepared { adapted, controlnets }),
            (adapted, _) => Adaptation::Make(Box::new(Making { adapted, controlnets })),
        })
    }

    /// The bytes of everything that jobs are prepared with, used or not.
    pub fn prepared_memory(&self) -> u64 {
        self.adapted.as_ref().map_or(0, AdaptedModels::held)
            + self.controlnets.as_ref().map_or(0, ControlNets::held)
    }

    /// The bytes of each copy and ControlNet that nobody uses at the moment, and when it was last used.
    pub fn unused_copies(&self) -> Vec<(u64, Instant)> {
        let copies = self.adapted.as_ref().map_or_else(Vec::new, AdaptedModels::unused);
        copies
            .into_iter()
            .chain(self.controlnets.as_ref().map_or_else(Vec::new, ControlNets::unused))
            .collect()
    }

    /// Drops unused copies and ControlNets beyond the most that may be kept.
    pub fn trim_copies(&mut self) {
        if let (Some(adapted), Some(controlnets)) = (&mut self.adapted, &mut self.controlnets) {
            adapted.trim(0);
            controlnets.trim(0);
        }
    }

    /// Drops unused copies and then ControlNets, of each the least recently used first, until that many bytes are free.
    pub fn drop_copies(&mut self, bytes: u64) {
        if let (Some(adapted), Some(controlnets)) = (&mut self.adapted, &mut self.controlnets) {
            let freed = adapted.drop_unused(bytes);
            controlnets.drop_unused(bytes.saturating_sub(freed));
        }
    }

    /// Keeps what another thread has made.
    pub fn keep(&mut self, made: Made) -> Prepared {
        let Made { mut adapted, merged, controlnets } = made;
        if let (Some(merged), Some(copies)) = (merged, &mut self.adapted) {
            adapted = Some(copies.keep(merged));
        }
        if let Some(cache) = &mut self.controlnets {
            for loaded in &controlnets {
                cache.keep(loaded);
            }
        }
        Prepared { adapted, controlnets }
    }
}
