//! Whose engines are in a device's memory, and who must leave when another needs the room.
//!
//! Shared by all workers. An engine lives on its worker's thread, so nobody takes it away: whose turn it is to
//! leave is asked to, and does so between two jobs. First come those that are idle, the longest first; then, if
//! somebody has waited for its turn's length, one that has jobs without end. Nothing is known here of engines
//! but their size.

mod residents;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Placement;
use residents::{Resident, Residents};

use crate::domain::{EndpointId, Timestamp};
use crate::runtime::Device;

/// How long an engine that always has jobs may stay while another waits: several times what loading takes, so
/// that two of them do not spend their time with that.
pub(super) const TURN: Duration = Duration::from_secs(30);

/// Clones are the same one.
#[derive(Clone)]
pub struct Residency(Arc<Shared>);

struct Shared {
    residents: Mutex<Residents>,
    /// Makes every worker look around.
    wake: Box<dyn Fn() + Send + Sync>,
}

/// A worker's seat: of its engine if it has one. It leaves with the worker.
pub struct Seat {
    residency: Residency,
    id: u64,
}

/// The answer to one who needs room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It is reserved.
    Granted,
    /// Not now: ask again. Others have been asked to leave if that helps.
    Later,
    /// There will never be so much.
    Never { needs: u64, budget: u64 },
}

impl Residency {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { residents: Mutex::default(), wake: Box::new(wake) }))
    }

    /// A seat for a worker. `in_line`: it will ask for room soon, and before those that come later.
    pub fn seat(&self, endpoint: &EndpointId, in_line: bool) -> Seat {
        let mut residents = self.residents();
        let id = residents.next_id();
        residents.all.push(Resident::new(id, endpoint.clone(), in_line.then_some(id)));
        Seat { residency: self.clone(), id }
    }

    /// The devices that somebody has asked for room on.
    pub fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for resident in &self.residents().all {
            if let Some(device) = resident.device().filter(|device| !devices.contains(*device)) {
                devices.push(device.clone());
            }
        }
        devices
    }

    fn residents(&self) -> MutexGuard<'_, Residents> {
        self.0.residents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Asks for room, and for others to leave if there is none. The worker of an endpoint that has an engine there
    /// already does not have anybody leave.
    pub fn ask(&self, placement: &Placement, now: Timestamp) -> Room {
        self.change(|residents, id| residents.ask(id, placement, now, true))
    }

    /// Takes room if there is some. None: there is not, and it no longer stands in line.
    pub fn ask_for_free(&self, placement: &Placement, now: Timestamp) -> Option<Room> {
        self.change(|residents, id| {
            let answer = residents.ask(id, placement, now, false);
            (answer != Room::Later || residents.one(id).ticket.is_some()).then_some(answer)
        })
    }

    /// Whether another worker of its endpoint holds an engine.
    pub fn has_sibling(&self) -> bool {
        self.residency.residents().has_sibling(self.id)
    }

    /// It needs no room any more.
    pub fn withdraw(&self) {
        if self.residency.residents().one(self.id).ticket.is_none() {
            return;
        }
        self.change(|residents, id| {
            residents.one(id).ticket = None;
            residents.settle_wishes(id);
        });
    }

    /// How much its engine holds in fact.
    pub fn hold(&self, bytes: u64, now: Timestamp) {
        self.change(|residents, id| {
            let resident = residents.one(id);
            (resident.held, resident.loaded_at, resident.used_at) = (bytes, now, now);
            // Who asked it to leave while it was loading did so too early.
            resident.is_wanted = false;
        });
    }

    /// Whether its engine has work at the moment, and how much it holds by now.
    pub fn set_busy(&self, is_busy: bool, bytes: u64, now: Timestamp) {
        let mut residents = self.residency.residents();
        let resident = residents.one(self.id);
        (resident.is_busy, resident.held, resident.used_at) = (is_busy, bytes, now);
    }

    /// Whether its engine is to leave once it has no job in hand.
    pub fn is_wanted(&self) -> bool {
        self.residency.residents().one(self.id).is_wanted
    }

    /// Its engine is gone.
    pub fn leave(&self) {
        self.change(|residents, id| {
            let resident = residents.one(id);
            (resident.held, resident.is_busy, resident.is_wanted) = (0, false, false);
        });
    }

    /// Makes everybody look around if something has changed for them.
    fn change<T>(&self, change: impl FnOnce(&mut Residents, u64) -> T) -> T {
        let (outcome, has_changed) = {
            let mut residents = self.residency.residents();
            let before = residents.outline();
            let outcome = change(&mut residents, self.id);
            (outcome, residents.outline() != before)
        };
        if has_changed {
            (self.residency.0.wake)();
        }
        outcome
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.change(|residents, id| {
            residents.settle_wishes(id);
            residents.all.retain(|resident| resident.id != id);
        });
    }
}
