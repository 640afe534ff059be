//! The memory of a worker's engine and its jobs: reserved before it is used, and given back when it is free.

use bytesize::ByteSize;

use super::engine_slot::EngineSlot;
use crate::domain::{GenerationInput, ImageSize, Precision};
use crate::engine::{Engine, Grant, Model};

/// A picture that takes next to nothing.
const SMALLEST: ImageSize = ImageSize { width: 64, height: 64 };

impl<M: Model> EngineSlot<M> {
    /// The bytes that the engine holds with these jobs, and with what is being made.
    pub(super) fn held_with(&self, jobs: &[&GenerationInput]) -> u64 {
        let held = |engine: &M::Engine| engine.memory_for(jobs) + engine.prepared_memory();
        self.engine().map_or(0, held) + self.making
    }

    /// So many bytes are being made beside the jobs.
    pub fn set_making(&mut self, bytes: u64) {
        self.making = bytes;
        if !self.is_loaded() {
            self.memory.unloaded(bytes);
        }
    }

    /// Drops the spares that others need, and notes what is held with these jobs. That gives back what jobs have
    /// reserved that have ended.
    pub fn settle(&mut self, jobs: &[&GenerationInput]) {
        self.drop_asked();
        if let Some(engine) = self.engine() {
            let account = (self.held_with(jobs), engine.spares());
            if account != self.account {
                self.memory.hold(account.0, account.1.clone());
                self.account = account;
            }
        }
    }

    /// Reserves what one more job takes beside `others`, and `to_make` bytes for what is made for it. False: others have
    /// been asked for it.
    pub fn reserve_for(&mut self, others: &[&GenerationInput], job: &GenerationInput, to_make: u64) -> bool {
        let with_it: Vec<_> = others.iter().copied().chain([job]).collect();
        loop {
            let total = self.held_with(&with_it) + to_make;
            if self.memory.grow(total, self.clock.now()) == Grant::Now {
                // Nothing was reserved if it holds more already.
                self.account.0 = self.account.0.max(total);
                return true;
            }
            let before = self.account.0;
            self.settle(others);
            if self.account.0 >= before {
                return false;
            }
        }
    }

    /// Why a job can never begin for which `to_make` bytes are still to be made, although it is the engine's only job:
    /// it needs more than there is, even without all spares and without other engines. None if it can.
    pub fn refusal_alone(&self, job: &GenerationInput, to_make: u64) -> Option<String> {
        let spares: u64 = self.engine()?.spares().iter().map(|spare| spare.bytes).sum();
        let prepared = (self.engine()?.prepared_memory() + to_make).saturating_sub(spares);
        // What is being made for nobody any more is free soon.
        self.refusal(job, prepared).filter(|_| self.making == 0)
    }

    /// Why a job can never begin that takes `prepared` bytes besides its drawing. None if it can.
    pub fn refusal(&self, job: &GenerationInput, prepared: u64) -> Option<String> {
        let (engine, budget) = (self.engine()?, self.budget()?);
        (engine.memory_for(&[job]) + prepared > budget).then(|| self.too_large(job, prepared))
    }

    /// The sentence that a job is too large, with the changes that would help.
    pub fn too_large(&self, job: &GenerationInput, prepared: u64) -> String {
        let budget = self.budget().unwrap_or(u64::MAX);
        let needs = |job: &GenerationInput, prepared: u64| {
            self.engine().map_or(0, |engine| engine.memory_for(&[job])) + prepared
        };
        let now = needs(job, prepared);
        let add_ons = [("LoRAs", !job.loras.is_empty()), ("ControlNets", !job.controlnets.is_empty())];
        let mut prepared_for: Vec<_> =
            add_ons.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name).collect();
        let is_int8 = job.precision == Precision::Int8;
        let without = match (prepared_for.join(" and "), is_int8) {
            (names, true) if names.is_empty() => "a picture in full precision".to_owned(),
            (names, true) => format!("a picture in full precision without {names}"),
            (names, false) => format!("a picture without {names}"),
        };
        if is_int8 {
            prepared_for.push("weights in int8");
        }
        let plain = GenerationInput {
            loras: Vec::new(),
            controlnets: Vec::new(),
            precision: Precision::Full,
            ..job.clone()
        };
        let changes = [
            ("a smaller picture", needs(&GenerationInput { size: SMALLEST, ..job.clone() }, prepared)),
            ("a picture without hires", needs(&GenerationInput { hires: None, ..job.clone() }, prepared)),
            ("fewer outputs", needs(&GenerationInput { num_outputs: 1, ..job.clone() }, prepared)),
            // Without any of those, there is nothing to leave out.
            (&*without, if prepared_for.is_empty() { now } else { needs(&plain, 0) }),
            (
                "a picture that is not checked (`nsfw: true`)",
                needs(&GenerationInput { nsfw: true, ..job.clone() }, prepared),
            ),
        ];
        // One of those that are enough, or all that help together.
        let enough: Vec<_> =
            changes.iter().filter(|(_, needs)| *needs <= budget).map(|(way, _)| *way).collect();
        let helpful: Vec<_> = changes.iter().filter(|(_, needs)| *needs < now).map(|(way, _)| *way).collect();
        let ways = if enough.is_empty() { helpful.join(" and ") } else { enough.join(" or ") };
        let for_what = match prepared_for.join(" and ") {
            names if names.is_empty() || prepared == 0 => String::new(),
            names => format!(" ({} of it for its {names})", ByteSize(prepared)),
        };
        let asks = if ways.is_empty() { String::new() } else { format!("ask for {ways}, or ") };
        format!(
            "This needs about {} of memory{for_what}, and models may use {}: {asks}let the server draw with a larger \
             --memory-budget or on another --device.",
            ByteSize(now),
            ByteSize(budget)
        )
    }

    fn drop_asked(&mut self) {
        let bytes = self.memory.must_drop();
        if bytes > 0 && self.is_loaded() {
            tracing::info!(
                bytes,
                "unused copies with LoRAs and unused ControlNets are dropped, because their memory is needed"
            );
            // A panic has unloaded the engine.
            let _ = self.call(|engine| {
                engine.drop_spares(bytes);
                Ok(())
            });
        }
    }
}
