//! When the engine comes and when it goes: for work, as long as nobody needs its room more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use bytesize::ByteSize;

use super::{Engine, EngineError, FirstLoad, IDLE, LONGEST_PAUSE, LOOK, Model, Room, Worker};
use crate::domain::Timestamp;
use crate::queue::WorkerState;

/// Why no engine could be had, a sentence for clients, and until when that is taken to be so.
#[derive(Debug)]
pub(super) struct Broken {
    sentence: String,
    until: Timestamp,
}

/// How long a failure is remembered: jobs that come meanwhile fail at once, not each after another try.
const REMEMBERED: Duration = Duration::from_secs(30);

impl<M: Model> Worker<M> {
    /// Loads the engine that a worker is to begin with.
    pub(super) fn load_first(&mut self) -> Result<(), String> {
        let loaded = match self.assignment.first_load {
            FirstLoad::OnDemand => return Ok(()),
            FirstLoad::IfItFits | FirstLoad::Required => self.load_if_it_fits(),
        };
        if let Err(sentence) = loaded {
            if self.assignment.first_load == FirstLoad::Required {
                return Err(sentence);
            }
            self.break_down(sentence);
        }
        self.tell_seat();
        Ok(())
    }

    fn load_if_it_fits(&mut self) -> Result<(), String> {
        self.place()?;
        let Some(placement) = self.placement.clone() else { return Ok(()) };
        while !self.stop.is_stopping() {
            match self.assignment.seat.ask_for_free(&placement, self.queue.now()) {
                None => return Ok(()),
                Some(Room::Granted) => return self.load(),
                Some(Room::Never { needs, budget }) => return Err(too_large(needs, budget)),
                // Those before it are about to.
                Some(Room::Later) => thread::park_timeout(LOOK),
            }
        }
        Ok(())
    }

    /// Whether there is an engine, loaded now if there is work and room for it. What cannot be loaded fails the
    /// jobs that wait for it.
    pub(super) fn has_engine(&mut self) -> bool {
        if self.engine.is_some() {
            return true;
        }
        self.wants_room = false;
        match self.queue.has_work(&self.assignment.endpoint) {
            Ok(true) => {}
            Ok(false) => {
                self.assignment.seat.withdraw();
                return false;
            }
            Err(error) => {
                if !self.queue.is_closed() {
                    tracing::warn!(%error, "the queue could not be looked into; trying again");
                }
                (self.pause)(LONGEST_PAUSE);
                return false;
            }
        }
        let now = self.queue.now();
        if self.broken.as_ref().is_some_and(|broken| now < broken.until) {
            self.refuse_queued();
            return false;
        }
        if let Err(sentence) = self.load_for_work() {
            self.break_down(sentence);
            self.refuse_queued();
        }
        self.engine.is_some()
    }

    fn load_for_work(&mut self) -> Result<(), String> {
        self.place()?;
        let Some(placement) = &self.placement else { return Ok(()) };
        match self.assignment.seat.ask(placement, self.queue.now()) {
            Room::Granted => self.load(),
            Room::Never { needs, budget } => Err(too_large(needs, budget)),
            Room::Later => {
                self.wants_room = true;
                self.entry.set(WorkerState::Throttled);
                Ok(())
            }
        }
    }

    /// Finds out where the engine is to be.
    fn place(&mut self) -> Result<(), String> {
        if self.placement.is_none() {
            let placement = unwinding(|| self.model.placement());
            self.placement = Some(placement.map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Loads the engine into the room that was granted.
    fn load(&mut self) -> Result<(), String> {
        self.entry.set(WorkerState::Initializing);
        match unwinding(|| self.model.load()) {
            Ok(engine) => {
                let now = self.queue.now();
                self.assignment.seat.hold(engine.memory(), now);
                (self.is_busy, self.idle_since) = (true, now);
                self.engine = Some(engine);
                self.broken = None;
                Ok(())
            }
            Err(error) => {
                self.assignment.seat.leave();
                Err(match error {
                    EngineError::OutOfMemory(reason) => {
                        let device = self.device_name();
                        tracing::warn!(device, reason, "out of memory");
                        format!(
                            "The memory of the server's device ({device}) did not suffice to load the model: let the \
                             server use a smaller --memory-budget, so that others leave, or another --device."
                        )
                    }
                    EngineError::Other(sentence) => sentence,
                })
            }
        }
    }

    fn break_down(&mut self, sentence: String) {
        tracing::error!(endpoint = %self.assignment.endpoint, error = sentence, "the engine could not be loaded");
        self.assignment.seat.withdraw();
        self.broken = Some(Broken { sentence, until: self.queue.now() + REMEMBERED });
    }

    /// Fails the endpoint's jobs, unless another of its workers has an engine for them.
    fn refuse_queued(&mut self) {
        if self.assignment.seat.has_sibling() {
            self.wants_room = true;
            self.entry.set(WorkerState::Throttled);
        } else {
            self.fail_queued();
        }
    }

    /// Fails the endpoint's jobs with the reason why there is no engine for them.
    fn fail_queued(&mut self) {
        let Some(Broken { sentence, .. }) = &self.broken else { return };
        let sentence = sentence.clone();
        let gpu = self.placement.as_ref().map_or("none".to_owned(), |placement| placement.device.label());
        while !self.stop.is_stopping() {
            match self.queue.claim(&self.assignment.endpoint, &gpu) {
                Ok(Some(job)) => {
                    tracing::warn!(job = %job.id(), attempt = job.attempt(), "failed for want of an engine");
                    self.write(job.fail(sentence.clone()));
                }
                Ok(None) => return,
                Err(error) => {
                    if !self.queue.is_closed() {
                        tracing::warn!(%error, "no job could be claimed; trying again");
                    }
                    return (self.pause)(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Drops the engine if it has no job in hand, and another needs its room or it was idle for long. False: it
    /// is to take no further job.
    pub(super) fn may_stay(&mut self) -> bool {
        if self.engine.is_none() {
            return true;
        }
        let is_wanted = self.assignment.seat.is_wanted();
        if self.is_at_work() {
            return !is_wanted;
        }
        let is_unused = self.idle_left() == Some(Duration::ZERO) && !self.has_work_now();
        if is_wanted || is_unused {
            tracing::info!(endpoint = %self.assignment.endpoint, is_wanted, "the engine is unloaded");
            self.unload();
        }
        true
    }

    pub(super) fn unload(&mut self) {
        self.engine = None;
        self.is_busy = false;
        self.assignment.seat.leave();
    }

    /// Lets the seat know whether there is work in hand.
    pub(super) fn tell_seat(&mut self) {
        let is_busy = self.is_at_work();
        if let Some(engine) = self.engine.as_ref().filter(|_| is_busy != self.is_busy) {
            self.is_busy = is_busy;
            self.idle_since = self.queue.now();
            self.assignment.seat.set_busy(is_busy, engine.memory(), self.idle_since);
        }
    }

    /// How long to wait for work.
    pub(super) fn patience(&self) -> Duration {
        self.idle_left().map_or(IDLE, |left| left.min(IDLE))
    }

    /// Whether it has jobs that need the engine, or soon will.
    fn is_at_work(&self) -> bool {
        !self.active.is_empty() || !self.fetching.is_empty()
    }

    /// How long the engine may still stay without work, if that is limited.
    fn idle_left(&self) -> Option<Duration> {
        let limit = self.assignment.unload_after.filter(|_| self.engine.is_some())?;
        Some(limit.saturating_sub(self.queue.now().since(self.idle_since)))
    }

    fn has_work_now(&self) -> bool {
        self.queue.has_work(&self.assignment.endpoint).unwrap_or(true)
    }

    fn device_name(&self) -> String {
        self.placement.as_ref().map_or("none".to_owned(), |placement| placement.device.name())
    }

    /// An engine's error as a sentence for clients.
    pub(super) fn explain(&self, error: EngineError, what: &str) -> EngineError {
        match error {
            EngineError::OutOfMemory(reason) => {
                let device = self.device_name();
                tracing::warn!(device, reason, "out of memory");
                EngineError::OutOfMemory(format!(
                    "The memory of the server's device ({device}) did not suffice: ask for a smaller picture or fewer \
                     outputs, or let the server draw with a smaller --memory-budget or on another --device."
                ))
            }
            EngineError::Other(reason) => EngineError::Other(format!("{what}: {reason}")),
        }
    }
}

fn too_large(needs: u64, budget: u64) -> String {
    format!(
        "The model takes about {} of memory, and {} is what models may take: raise --memory-budget, or choose \
         another --device.",
        ByteSize(needs),
        ByteSize(budget)
    )
}

fn unwinding<T>(make: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| {
        Err(EngineError::Other("The engine could not be loaded: it panicked.".to_owned()))
    })
}
