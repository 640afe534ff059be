//! Which engines are in a device's memory, and which one unloads when another needs the memory.
//!
//! All workers share one [`Residency`]. Whatever a worker is about to take, an engine or what a job needs beyond it, it
//! reserves first, so two workers never plan the same bytes. An engine lives on its worker's thread, so nobody can take
//! it away: the worker is asked to unload it, and does so between two jobs. Engines have [`Spare`]s, which leave first.
//! Then idle engines are asked, the one unused for longest before the others. An engine that always has jobs is asked
//! once another worker has waited for [`BUSY_STAY`]. Only sizes and times are known here.

mod slots;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Placement;
use crate::domain::{EndpointId, Timestamp};
use crate::runtime::Device;
use slots::Slots;

/// How long a busy engine stays while another waits for its memory, counted from the moment when the other first
/// asked, or from its own loading if that is later. Loading takes a fraction of this, so two busy models draw most of
/// the time.
pub const BUSY_STAY: Duration = Duration::from_secs(30);

/// The memory of all devices, as engines share it. A clone is another handle to the same one.
#[derive(Clone)]
pub struct Residency(Arc<Shared>);

struct Shared {
    slots: Mutex<Slots>,
    /// Wakes all workers, so that they look at their slot again.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// One worker's claim to memory for its engine. Dropping it gives the memory back.
pub struct MemorySlot {
    residency: Residency,
    id: u64,
}

/// What an engine keeps for later jobs and can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spare {
    pub bytes: u64,
    pub used_at: Instant,
}

/// The answer to a request for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// The memory is reserved.
    Now,
    /// Not yet: ask again. If it helps, engines have been asked to drop spares or to unload.
    Later,
    /// The engine is larger than all the memory that engines may use.
    Never { needs: u64, budget: u64 },
}

impl Residency {
    /// `wake` must make every worker look at its slot again.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { slots: Mutex::default(), wake: Box::new(wake) }))
    }

    /// A slot for a worker of `endpoint`. `in_line`: the worker asks for memory soon, and is served before slots that
    /// are made later.
    pub fn slot(&self, endpoint: &EndpointId, in_line: bool) -> MemorySlot {
        let id = self.slots().add(endpoint, in_line);
        MemorySlot { residency: self.clone(), id }
    }

    /// The devices that some worker has asked for memory on.
    pub fn devices(&self) -> Vec<Device> {
        self.slots().devices()
    }

    /// The bytes that are held or reserved on a device.
    #[cfg(test)]
    pub(crate) fn held(&self, device: &Device) -> u64 {
        self.slots().held_on(device)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemorySlot {
    /// Asks for memory, and asks other engines to unload if too little is free. If another worker of the same
    /// endpoint has an engine on the device already, only free memory is given.
    pub fn request(&self, placement: &Placement, now: Timestamp) -> Grant {
        self.change(|slots, id| slots.request(id, placement, now, true))
    }

    /// Takes memory only if it is free. None: it is not free, and the slot no longer waits in line.
    pub fn request_free(&self, placement: &Placement, now: Timestamp) -> Option<Grant> {
        self.change(|slots, id| {
            let answer = slots.request(id, placement, now, false);
            (answer != Grant::Later || slots.waits(id)).then_some(answer)
        })
    }

    /// Asks for memory beyond what the slot holds, so that it holds `total` bytes, as [`Self::request`] does for an
    /// engine.
    pub fn grow(&self, total: u64, now: Timestamp) -> Grant {
        self.change(|slots, id| slots.grow(id, total, now))
    }

    /// Stops waiting for memory.
    pub fn withdraw(&self) {
        if self.residency.slots().waits(self.id) {
            self.change(Slots::withdraw);
        }
    }

    /// The engine has been loaded and holds `bytes`.
    pub fn loaded(&self, bytes: u64, now: Timestamp) {
        self.change(|slots, id| slots.loaded(id, bytes, now));
    }

    /// Says whether the engine has jobs at the moment.
    pub fn set_busy(&self, is_busy: bool, now: Timestamp) {
        self.residency.slots().set_busy(self.id, is_busy, now);
    }

    /// Says how many bytes the engine holds by now, with its spares, and which these are.
    pub fn hold(&self, bytes: u64, spares: Vec<Spare>) {
        self.change(|slots, id| slots.hold(id, bytes, spares));
    }

    /// The bytes of spares that the engine has been asked to drop.
    pub fn must_drop(&self) -> u64 {
        self.residency.slots().must_drop(self.id)
    }

    /// Whether the engine has been asked to unload once its jobs are done.
    pub fn must_unload(&self) -> bool {
        self.residency.slots().must_unload(self.id)
    }

    /// The engine is unloaded, or could not be loaded. So many bytes are still in use.
    pub fn unloaded(&self, still_held: u64) {
        self.change(|slots, id| slots.unloaded(id, still_held));
    }

    /// Whether another worker of the same endpoint has an engine, on any device.
    pub fn has_sibling(&self) -> bool {
        self.residency.slots().has_sibling(self.id)
    }

    /// Changes the table, and wakes the workers if that may matter to them.
    fn change<T>(&self, change: impl FnOnce(&mut Slots, u64) -> T) -> T {
        let (outcome, has_changed) = {
            let mut slots = self.residency.slots();
            let before = slots.summary();
            let outcome = change(&mut slots, self.id);
            (outcome, slots.summary() != before)
        };
        if has_changed {
            (self.residency.0.wake)();
        }
        outcome
    }
}

impl Drop for MemorySlot {
    fn drop(&mut self) {
        self.change(Slots::remove);
    }
}
