//! The table of memory slots, and the rules by which memory is given.

use std::cmp::Reverse;

use super::{BUSY_STAY, Grant, Spare};
use crate::domain::{EndpointId, Timestamp};
use crate::engine::Placement;
use crate::runtime::Device;

/// All slots. A [`super::MemorySlot`] names its own by number.
#[derive(Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    last_number: u64,
}

/// One worker's slot.
struct Slot {
    id: u64,
    endpoint: EndpointId,
    /// Unknown until the worker first asks.
    placement: Option<Placement>,
    /// Bytes in use or reserved.
    held: u64,
    /// What it could do without. Part of `held`.
    spares: Vec<Spare>,
    /// Bytes of spares that the worker has been asked to drop.
    must_drop: u64,
    loaded_at: Timestamp,
    used_at: Timestamp,
    is_busy: bool,
    /// The worker has been asked to unload its engine.
    must_unload: bool,
    /// Its place in the line for memory, if it waits.
    ticket: Option<Ticket>,
}

/// A place in the line: lower numbers are served first.
#[derive(Clone, Copy)]
struct Ticket {
    number: u64,
    /// When the slot first asked for memory; none if it only announced that it would.
    since: Option<Timestamp>,
}

impl Slot {
    fn device(&self) -> Option<&Device> {
        self.placement.as_ref().map(|placement| &placement.device)
    }

    fn is_loaded_for(&self, endpoint: &EndpointId) -> bool {
        self.held > 0 && self.endpoint == *endpoint
    }

    /// Whether it may be asked to unload for a slot that has waited since `waiting_since`.
    fn may_be_asked(&self, waiting_since: Timestamp, now: Timestamp) -> bool {
        let busy_since = self.loaded_at.max(waiting_since);
        self.held > 0 && (!self.is_busy || now.since(busy_since) >= BUSY_STAY)
    }
}

impl Slots {
    pub fn add(&mut self, endpoint: &EndpointId, in_line: bool) -> u64 {
        let (id, never) = (self.next_number(), Timestamp(0));
        self.all.push(Slot {
            id,
            endpoint: endpoint.clone(),
            placement: None,
            held: 0,
            spares: Vec::new(),
            must_drop: 0,
            loaded_at: never,
            used_at: never,
            is_busy: false,
            must_unload: false,
            ticket: in_line.then_some(Ticket { number: id, since: None }),
        });
        id
    }

    pub fn remove(&mut self, id: u64) {
        self.withdraw_requests(id);
        self.all.retain(|slot| slot.id != id);
    }

    /// Gives memory if enough is free. If not, and `may_ask_others`, the slot waits in line, and when it is first
    /// there other engines are asked to unload.
    pub fn request(&mut self, id: u64, placement: &Placement, now: Timestamp, may_ask_others: bool) -> Grant {
        let Placement { device, needs, budget } = placement.clone();
        let budget = budget.unwrap_or(u64::MAX);
        self.slot(id).placement = Some(placement.clone());
        if needs > budget {
            self.withdraw(id);
            return Grant::Never { needs, budget };
        }
        if self.has_sibling_on(&device, id) {
            self.slot(id).ticket = None;
        } else if may_ask_others {
            self.join_line(id, now);
        }
        if !self.is_first_in_line(id, &device) {
            return Grant::Later;
        }
        let shortage = self.shortage(id, &device, needs, budget);
        if shortage == 0 {
            self.reserve(id, needs, now);
            return Grant::Now;
        }
        if !may_ask_others {
            self.slot(id).ticket = None;
        } else if self.waits(id) {
            self.withdraw_requests(id);
            self.ask_others(&device, id, shortage, now);
        }
        Grant::Later
    }

    /// Lets the slot hold `total` bytes if that much is free. If not, it waits in line, and when it is first there,
    /// spares are asked for, its own as well, and other engines are asked to unload.
    pub fn grow(&mut self, id: u64, total: u64, now: Timestamp) -> Grant {
        let slot = self.slot(id);
        let Some(Placement { device, budget, .. }) = slot.placement.clone() else { return Grant::Later };
        let budget = budget.unwrap_or(u64::MAX);
        if total > slot.held {
            self.join_line(id, now);
            if !self.is_first_in_line(id, &device) {
                return Grant::Later;
            }
            let shortage = self.shortage(id, &device, total, budget);
            self.withdraw_requests(id);
            if shortage > 0 {
                self.ask_others(&device, id, shortage, now);
                return Grant::Later;
            }
            self.slot(id).held = total;
        }
        self.slot(id).ticket = None;
        Grant::Now
    }

    pub fn withdraw(&mut self, id: u64) {
        self.slot(id).ticket = None;
        self.withdraw_requests(id);
    }

    pub fn loaded(&mut self, id: u64, bytes: u64, now: Timestamp) {
        let slot = self.slot(id);
        (slot.held, slot.loaded_at, slot.used_at) = (bytes, now, now);
        // A request that came while it was loading came too early: the engine is to draw first.
        slot.must_unload = false;
    }

    pub fn unloaded(&mut self, id: u64, still_held: u64) {
        self.hold(id, still_held, Vec::new());
        let slot = self.slot(id);
        (slot.is_busy, slot.must_unload) = (false, false);
    }

    pub fn set_busy(&mut self, id: u64, is_busy: bool, now: Timestamp) {
        let slot = self.slot(id);
        (slot.is_busy, slot.used_at) = (is_busy, now);
    }

    pub fn hold(&mut self, id: u64, bytes: u64, spares: Vec<Spare>) {
        let slot = self.slot(id);
        (slot.held, slot.spares, slot.must_drop) = (bytes, spares, 0);
    }

    pub fn must_drop(&mut self, id: u64) -> u64 {
        self.slot(id).must_drop
    }

    pub fn must_unload(&mut self, id: u64) -> bool {
        self.slot(id).must_unload
    }

    pub fn waits(&mut self, id: u64) -> bool {
        self.slot(id).ticket.is_some()
    }

    /// Whether another worker of the same endpoint has an engine, on any device.
    pub fn has_sibling(&mut self, id: u64) -> bool {
        let endpoint = self.slot(id).endpoint.clone();
        self.all.iter().any(|other| other.id != id && other.is_loaded_for(&endpoint))
    }

    pub fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for device in self.all.iter().filter_map(Slot::device) {
            if !devices.contains(device) {
                devices.push(device.clone());
            }
        }
        devices
    }

    #[cfg(test)]
    pub fn held_on(&self, device: &Device) -> u64 {
        self.all.iter().filter(|slot| slot.device() == Some(device)).map(|slot| slot.held).sum()
    }

    /// All that workers act on: who holds how much, who is asked to unload, and who waits.
    pub fn summary(&self) -> Vec<(u64, u64, u64, bool, bool)> {
        let summary =
            |slot: &Slot| (slot.id, slot.held, slot.must_drop, slot.must_unload, slot.ticket.is_some());
        self.all.iter().map(summary).collect()
    }

    fn slot(&mut self, id: u64) -> &mut Slot {
        let found = self.all.iter_mut().find(|slot| slot.id == id);
        found.expect("a slot stays in the table until it is dropped")
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn others_on(&self, device: &Device, id: u64) -> impl Iterator<Item = &Slot> {
        self.all.iter().filter(move |other| other.id != id && other.device() == Some(device))
    }

    fn has_sibling_on(&mut self, device: &Device, id: u64) -> bool {
        let endpoint = self.slot(id).endpoint.clone();
        self.others_on(device, id).any(|other| other.is_loaded_for(&endpoint))
    }

    fn join_line(&mut self, id: u64, now: Timestamp) {
        let ticket = self.slot(id).ticket;
        let number = ticket.map_or_else(|| self.next_number(), |ticket| ticket.number);
        let since = ticket.and_then(|ticket| ticket.since).unwrap_or(now);
        self.slot(id).ticket = Some(Ticket { number, since: Some(since) });
    }

    /// Whether no other slot on this device waits for longer. A slot whose device is unknown may be on this one.
    fn is_first_in_line(&mut self, id: u64, device: &Device) -> bool {
        let number = self.slot(id).ticket.map_or(u64::MAX, |ticket| ticket.number);
        !self.all.iter().any(|other| {
            let is_here = other.device().is_none_or(|theirs| theirs == device);
            other.id != id && is_here && other.ticket.is_some_and(|theirs| theirs.number < number)
        })
    }

    fn reserve(&mut self, id: u64, bytes: u64, now: Timestamp) {
        let slot = self.slot(id);
        (slot.held, slot.ticket, slot.is_busy) = (bytes, None, true);
        (slot.loaded_at, slot.used_at) = (now, now);
        self.withdraw_requests(id);
    }

    /// The bytes that are missing for the slot to hold `total`.
    fn shortage(&self, id: u64, device: &Device, total: u64, budget: u64) -> u64 {
        let held: u64 = self.others_on(device, id).map(|other| other.held).sum();
        held.saturating_add(total).saturating_sub(budget)
    }

    /// Asks for spares of `shortage` bytes, the least recently used first. If there are not as many, it also asks other
    /// engines to unload, idle ones first. Asks for nothing if all that is not enough.
    fn ask_others(&mut self, device: &Device, id: u64, shortage: u64, now: Timestamp) {
        let waiting_since = self.slot(id).ticket.and_then(|ticket| ticket.since).unwrap_or(now);
        let may_be_asked = |other: &&mut Slot| {
            other.id != id && other.device() == Some(device) && other.may_be_asked(waiting_since, now)
        };
        let spare = |slot: &Slot| slot.spares.iter().map(|spare| spare.bytes).sum::<u64>();
        let here = self.all.iter().filter(|slot| slot.device() == Some(device));
        let mut freed: u64 = here.map(spare).sum();
        let mut leaving: Vec<_> = self.all.iter_mut().filter(may_be_asked).collect();
        leaving.sort_by_key(|other| (other.is_busy, other.used_at, Reverse(other.held)));
        let (mut count, mut left) = (0, 0);
        while freed < shortage {
            let Some(next) = leaving.get(count) else { return };
            // Its spares are counted already.
            freed += next.held.saturating_sub(spare(next));
            left += next.held;
            count += 1;
        }
        leaving[..count].iter_mut().for_each(|other| other.must_unload = true);
        self.ask_for_spares(device, shortage.saturating_sub(left));
    }

    /// Asks the engines that stay for spares of so many bytes together.
    fn ask_for_spares(&mut self, device: &Device, bytes: u64) {
        let stays = |slot: &&mut Slot| slot.device() == Some(device) && !slot.must_unload;
        let mut staying: Vec<_> = self.all.iter_mut().filter(stays).collect();
        let spares = staying.iter().enumerate();
        let of_slot = |(place, slot): (usize, &&mut Slot)| {
            slot.spares.iter().map(|spare| (spare.used_at, place, spare.bytes)).collect::<Vec<_>>()
        };
        let mut spares: Vec<_> = spares.flat_map(of_slot).collect();
        spares.sort_unstable();
        let mut asked = 0;
        for (_, place, bytes_of_spare) in spares {
            if asked >= bytes {
                return;
            }
            staying[place].must_drop += bytes_of_spare;
            asked += bytes_of_spare;
        }
    }

    /// Takes back what was asked of the other engines on a slot's device. A slot that still waits asks again.
    fn withdraw_requests(&mut self, id: u64) {
        let device = self.slot(id).device().cloned();
        for other in self.all.iter_mut().filter(|other| other.device() == device.as_ref()) {
            (other.must_unload, other.must_drop) = (false, 0);
        }
    }
}
