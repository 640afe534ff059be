//! Whose engines are in a device's memory, and who must leave when another needs the room.
//!
//! Shared by all workers. An engine lives on its worker's thread, so nobody takes it away: whose turn it is to
//! leave is asked to, and does so between two jobs. First come those that are idle, the longest first; then, if
//! somebody has waited for its turn's length, one that has jobs without end. Nothing is known here of engines
//! but their size.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Placement;
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

#[derive(Default)]
struct Residents {
    all: Vec<Resident>,
    next_id: u64,
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

struct Resident {
    id: u64,
    endpoint: EndpointId,
    /// Unknown until it has asked.
    placement: Option<Placement>,
    /// Bytes in use or reserved.
    held: u64,
    loaded_at: Timestamp,
    used_at: Timestamp,
    is_busy: bool,
    is_wanted: bool,
    /// Its place in the line for room.
    ticket: Option<u64>,
}

impl Residency {
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { residents: Mutex::default(), wake: Box::new(wake) }))
    }

    /// A seat for a worker. `in_line`: it will ask for room soon, and before those that come later.
    pub fn seat(&self, endpoint: &EndpointId, in_line: bool) -> Seat {
        let mut residents = self.residents();
        let id = residents.next_id();
        residents.all.push(Resident {
            id,
            endpoint: endpoint.clone(),
            placement: None,
            held: 0,
            loaded_at: Timestamp(0),
            used_at: Timestamp(0),
            is_busy: false,
            is_wanted: false,
            ticket: in_line.then_some(id),
        });
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

impl Resident {
    fn device(&self) -> Option<&Device> {
        self.placement.as_ref().map(|placement| &placement.device)
    }
}

impl Residents {
    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn one(&mut self, id: u64) -> &mut Resident {
        let found = self.all.iter_mut().find(|resident| resident.id == id);
        found.expect("a seat is among the residents for as long as it lives")
    }

    /// What others go by: who holds how much, who is to leave and who waits.
    fn outline(&self) -> Vec<(u64, u64, bool, bool)> {
        let outline = |one: &Resident| (one.id, one.held, one.is_wanted, one.ticket.is_some());
        self.all.iter().map(outline).collect()
    }

    fn ask(&mut self, id: u64, placement: &Placement, now: Timestamp, may_ask_others: bool) -> Room {
        let Placement { device, needs, budget } = placement.clone();
        let budget = budget.unwrap_or(u64::MAX);
        self.one(id).placement = Some(placement.clone());
        if needs > budget {
            self.one(id).ticket = None;
            self.settle_wishes(id);
            return Room::Never { needs, budget };
        }
        let has_sibling = {
            let endpoint = self.one(id).endpoint.clone();
            self.others_on(&device, id).any(|other| other.held > 0 && other.endpoint == endpoint)
        };
        if has_sibling {
            self.one(id).ticket = None;
        } else if may_ask_others && self.one(id).ticket.is_none() {
            let ticket = self.next_id();
            self.one(id).ticket = Some(ticket);
        }
        let ticket = self.one(id).ticket.unwrap_or(u64::MAX);
        let is_next = !self.all.iter().any(|other| {
            let is_here = other.device().is_none_or(|theirs| *theirs == device);
            other.id != id && is_here && other.ticket.is_some_and(|theirs| theirs < ticket)
        });
        if !is_next {
            return Room::Later;
        }
        let held: u64 = self.others_on(&device, id).map(|other| other.held).sum();
        let short = held.saturating_add(needs).saturating_sub(budget);
        if short == 0 {
            let resident = self.one(id);
            (resident.held, resident.ticket, resident.is_busy) = (needs, None, true);
            (resident.loaded_at, resident.used_at) = (now, now);
            self.settle_wishes(id);
            return Room::Granted;
        }
        if !may_ask_others {
            self.one(id).ticket = None;
        } else if self.one(id).ticket.is_some() {
            self.settle_wishes(id);
            self.make_leave(&device, id, short, now);
        }
        Room::Later
    }

    fn others_on(&self, device: &Device, id: u64) -> impl Iterator<Item = &Resident> {
        self.all.iter().filter(move |other| other.id != id && other.device() == Some(device))
    }

    /// Asks as many to leave as hold `short` bytes, or nobody if that would not do.
    fn make_leave(&mut self, device: &Device, id: u64, short: u64, now: Timestamp) {
        let may_leave = |other: &&mut Resident| {
            let had_its_turn = now.since(other.loaded_at) >= TURN;
            let is_other = other.id != id && other.device() == Some(device);
            is_other && other.held > 0 && (!other.is_busy || had_its_turn)
        };
        let mut leaving: Vec<_> = self.all.iter_mut().filter(may_leave).collect();
        leaving.sort_by_key(|other| (other.is_busy, other.used_at, Reverse(other.held)));
        let mut freed = 0;
        let enough = leaving.iter().position(|other| {
            freed += other.held;
            freed >= short
        });
        if let Some(last) = enough {
            leaving[..=last].iter_mut().for_each(|other| other.is_wanted = true);
        }
    }

    /// Takes back what was asked of the others on a seat's device: whoever still needs room asks again.
    fn settle_wishes(&mut self, id: u64) {
        let device = self.one(id).device().cloned();
        for other in self.all.iter_mut().filter(|other| other.device() == device.as_ref()) {
            other.is_wanted = false;
        }
    }
}
