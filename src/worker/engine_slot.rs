//! A worker's engine: where it runs, whether it is loaded, and why it could not be.
//!
//! Every call to the engine goes through here, so that a panic costs the engine and not the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytesize::ByteSize;

use crate::domain::{Clock, Timestamp};
use crate::engine::{EngineError, Grant, MemorySlot, Model, Placement, Spare};

pub(super) struct EngineSlot<M: Model> {
    model: M,
    pub(super) memory: MemorySlot,
    /// What the memory slot was last told: the bytes held, and the spares among them.
    pub(super) account: (u64, Vec<Spare>),
    /// Bytes that are being made on another thread. They count, whatever becomes of the engine.
    pub(super) making: u64,
    /// How long the engine stays without a job; none: until another engine needs its memory.
    unload_after: Option<Duration>,
    pub(super) clock: Clock,
    /// None until a job needs it, and after a panic.
    engine: Option<M::Engine>,
    /// None until it is first asked for.
    placement: Option<Placement>,
    failure: Option<LoadFailure>,
    /// Jobs wait, but there is no memory for the engine yet.
    pub waits_for_memory: bool,
    /// Whether the memory slot was last told that the engine has jobs.
    is_busy: bool,
    idle_since: Timestamp,
}

/// Why no engine could be loaded, in a sentence for clients.
struct LoadFailure {
    sentence: String,
    until: Timestamp,
}

/// How long a failed load is remembered. Jobs that arrive meanwhile fail at once, without another try each.
const REMEMBERED: Duration = Duration::from_secs(30);
pub(super) const PANICKED: &str = "The engine stopped unexpectedly while it worked on this job.";

impl<M: Model> EngineSlot<M> {
    pub fn new(model: M, memory: MemorySlot, unload_after: Option<Duration>, clock: Clock) -> Self {
        Self {
            model,
            memory,
            account: (0, Vec::new()),
            making: 0,
            unload_after,
            idle_since: clock.now(),
            clock,
            engine: None,
            placement: None,
            failure: None,
            waits_for_memory: false,
            is_busy: false,
        }
    }

    pub fn engine(&self) -> Option<&M::Engine> {
        self.engine.as_ref()
    }

    pub fn is_loaded(&self) -> bool {
        self.engine.is_some()
    }

    /// Calls the engine. An error is a sentence for the client. A panic unloads the engine, since nobody knows in
    /// which state it is.
    pub fn call<T>(
        &mut self,
        call: impl FnOnce(&mut M::Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let panicked = || Err(EngineError::Other(PANICKED.to_owned()));
        let Some(engine) = self.engine.as_mut() else { return panicked() };
        if let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| call(engine))) {
            return outcome.map_err(|error| self.explain(error));
        }
        tracing::error!("the engine panicked and is loaded anew");
        self.unload();
        panicked()
    }

    /// Reserves memory for the engine, and has others unload if need be. False: there is none yet.
    pub fn reserve(&mut self) -> Result<bool, String> {
        let (placement, has_room) = self.place_with_making()?;
        if !has_room {
            return Ok(false);
        }
        granted(self.memory.request(&placement, self.clock.now()))
    }

    /// Reserves memory only if it is free. None: it is not free. False: engines that were first are still to ask.
    pub fn reserve_free(&mut self) -> Result<Option<bool>, String> {
        let (placement, has_room) = self.place_with_making()?;
        if !has_room {
            return Ok(None);
        }
        self.memory.request_free(&placement, self.clock.now()).map(granted).transpose()
    }

    /// Loads the engine into the memory that was reserved.
    pub fn load(&mut self) -> Result<(), String> {
        match unwinding(|| self.model.load()) {
            Ok(engine) => {
                let now = self.clock.now();
                (self.is_busy, self.idle_since) = (true, now);
                self.engine = Some(engine);
                self.failure = None;
                self.account = (self.held_with(&[]), Vec::new());
                self.memory.loaded(self.account.0, now);
                Ok(())
            }
            Err(error) => {
                self.memory.unloaded(self.making);
                Err(match error {
                    EngineError::OutOfMemory(reason) => {
                        let device = self.device_name();
                        tracing::warn!(device, reason, "out of memory");
                        format!(
                            "The server's device ({device}) has too little memory to load the model: let the server \
                             use a smaller --memory-budget, so that other models are unloaded, or another --device."
                        )
                    }
                    EngineError::Other(sentence) => sentence,
                })
            }
        }
    }

    pub fn unload(&mut self) {
        self.engine = None;
        self.is_busy = false;
        self.account = (0, Vec::new());
        self.memory.unloaded(self.making);
    }

    /// Whether another engine waits for this one's memory.
    pub fn must_unload(&self) -> bool {
        self.memory.must_unload()
    }

    /// Stops waiting for memory.
    pub fn withdraw(&self) {
        self.memory.withdraw();
    }

    /// Whether another worker of this endpoint has an engine.
    pub fn has_sibling(&self) -> bool {
        self.memory.has_sibling()
    }

    pub fn remember_failure(&mut self, sentence: String) {
        self.memory.withdraw();
        self.failure = Some(LoadFailure { sentence, until: self.clock.now() + REMEMBERED });
    }

    pub fn forget_failure(&mut self) {
        self.failure = None;
    }

    /// Whether the engine could not be loaded, the last time that it was tried.
    pub fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Why the engine could not be loaded just now.
    pub fn recent_failure(&self) -> Option<&str> {
        let failure = self.failure.as_ref().filter(|failure| self.clock.now() < failure.until)?;
        Some(&failure.sentence)
    }

    /// Notes whether the engine has jobs, for those who might need its memory.
    pub fn set_busy(&mut self, is_busy: bool) {
        if self.is_loaded() && is_busy != self.is_busy {
            self.is_busy = is_busy;
            self.idle_since = self.clock.now();
            self.memory.set_busy(is_busy, self.idle_since);
        }
    }

    /// How long the engine may still stay without a job, if that is limited.
    pub fn idle_time_left(&self) -> Option<Duration> {
        let limit = self.unload_after.filter(|_| self.is_loaded())?;
        Some(limit.saturating_sub(self.clock.now().since(self.idle_since)))
    }

    /// The device as status bodies name it.
    pub fn gpu_label(&self) -> String {
        self.placement.as_ref().map_or("none".to_owned(), |placement| placement.device.label())
    }

    /// Bytes that engines may use on this device, if that is limited.
    pub fn budget(&self) -> Option<u64> {
        self.placement.as_ref().and_then(|placement| placement.budget)
    }

    /// The placement, with what is still being made for an engine that is gone. False: the engine fits the budget only
    /// once that has been made.
    fn place_with_making(&mut self) -> Result<(Placement, bool), String> {
        let placement = self.place()?;
        let needs = placement.needs + self.making;
        let has_room = placement.budget.is_none_or(|budget| needs <= budget || placement.needs > budget);
        Ok((Placement { needs, ..placement }, has_room))
    }

    fn place(&mut self) -> Result<Placement, String> {
        if let Some(placement) = &self.placement {
            return Ok(placement.clone());
        }
        let placement = unwinding(|| self.model.placement()).map_err(|error| error.to_string())?;
        self.placement = Some(placement.clone());
        Ok(placement)
    }

    fn device_name(&self) -> String {
        self.placement.as_ref().map_or("none".to_owned(), |placement| placement.device.name())
    }

    /// The same error as a sentence for clients.
    fn explain(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::OutOfMemory(reason) => {
                let device = self.device_name();
                tracing::warn!(device, reason, "out of memory");
                EngineError::OutOfMemory(format!(
                    "The server's device ({device}) has too little memory for this: ask for a smaller picture or \
                     fewer outputs, or let the server draw with a smaller --memory-budget or on another --device."
                ))
            }
            EngineError::Other(reason) => EngineError::Other(format!("The model failed: {reason}")),
        }
    }
}

fn granted(grant: Grant) -> Result<bool, String> {
    match grant {
        Grant::Now => Ok(true),
        Grant::Later => Ok(false),
        Grant::Never { needs, budget } => Err(format!(
            "The model needs about {} of memory, and models may use {}: raise --memory-budget, or choose another \
             --device.",
            ByteSize(needs),
            ByteSize(budget)
        )),
    }
}

fn unwinding<T>(make: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(make)).unwrap_or_else(|_| {
        Err(EngineError::Other("The engine could not be loaded: it panicked.".to_owned()))
    })
}
