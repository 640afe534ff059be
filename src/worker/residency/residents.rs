//! Each worker's place on its device, and the rules by which room is given.

use std::cmp::Reverse;

use super::{Room, TURN};
use crate::domain::{EndpointId, Timestamp};
use crate::runtime::Device;
use crate::worker::Placement;

/// All of them. The number that a seat has is its place's.
#[derive(Default)]
pub(super) struct Residents {
    pub all: Vec<Resident>,
    next_id: u64,
}

/// A worker's place.
pub(super) struct Resident {
    pub id: u64,
    pub endpoint: EndpointId,
    /// Unknown until it has asked.
    pub placement: Option<Placement>,
    /// Bytes in use or reserved.
    pub held: u64,
    pub loaded_at: Timestamp,
    pub used_at: Timestamp,
    pub is_busy: bool,
    pub is_wanted: bool,
    /// Its place in the line for room.
    pub ticket: Option<u64>,
}

impl Resident {
    pub fn new(id: u64, endpoint: EndpointId, ticket: Option<u64>) -> Self {
        let never = Timestamp(0);
        Self {
            id,
            endpoint,
            placement: None,
            held: 0,
            loaded_at: never,
            used_at: never,
            is_busy: false,
            is_wanted: false,
            ticket,
        }
    }

    pub fn device(&self) -> Option<&Device> {
        self.placement.as_ref().map(|placement| &placement.device)
    }
}

impl Residents {
    /// A number above all before.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A seat's place.
    pub fn one(&mut self, id: u64) -> &mut Resident {
        let found = self.all.iter_mut().find(|resident| resident.id == id);
        found.expect("a seat is among the residents for as long as it lives")
    }

    /// What others go by: who holds how much, who is to leave and who waits.
    pub fn outline(&self) -> Vec<(u64, u64, bool, bool)> {
        let outline = |one: &Resident| (one.id, one.held, one.is_wanted, one.ticket.is_some());
        self.all.iter().map(outline).collect()
    }

    /// Whether another worker of the same endpoint holds an engine, on whichever device.
    pub fn has_sibling(&mut self, id: u64) -> bool {
        let endpoint = self.one(id).endpoint.clone();
        self.all.iter().any(|other| other.id != id && other.held > 0 && other.endpoint == endpoint)
    }

    /// Gives room, or says why not and has others leave if it may and that would do.
    pub fn ask(&mut self, id: u64, placement: &Placement, now: Timestamp, may_ask_others: bool) -> Room {
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
    pub fn settle_wishes(&mut self, id: u64) {
        let device = self.one(id).device().cloned();
        for other in self.all.iter_mut().filter(|other| other.device() == device.as_ref()) {
            other.is_wanted = false;
        }
    }
}
