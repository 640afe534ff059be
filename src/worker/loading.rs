//! When a worker loads its engine and when it unloads it.

use std::thread;
use std::time::Duration;

use super::{FirstLoad, IDLE, LONGEST_PAUSE, LOOK, Worker};
use crate::engine::{Engine, Model};
use crate::queue::WorkerState;
use crate::traces;

impl<M: Model> Worker<M> {
    /// Loads the engine that the worker is to begin with.
    pub(super) fn load_first(&mut self, first_load: FirstLoad) -> Result<(), String> {
        if first_load == FirstLoad::OnDemand {
            return Ok(());
        }
        if let Err(sentence) = self.load_if_it_fits() {
            if first_load == FirstLoad::Required {
                return Err(sentence);
            }
            self.remember_failure(sentence);
        }
        self.note_use();
        Ok(())
    }

    fn load_if_it_fits(&mut self) -> Result<(), String> {
        while !self.stop.is_stopping() {
            match self.engine.reserve_free()? {
                None => return Ok(()),
                Some(true) => return self.load(),
                Some(false) => thread::park_timeout(LOOK),
            }
        }
        Ok(())
    }

    /// Whether the engine is loaded. Loads it first if there is work and memory for it. If it cannot be loaded, the
    /// jobs that wait for it fail.
    pub(super) fn has_engine(&mut self) -> bool {
        if self.engine.is_loaded() {
            return true;
        }
        self.engine.waits_for_memory = false;
        match self.queue.has_work(&self.endpoint) {
            Ok(true) => {}
            Ok(false) => {
                self.engine.withdraw();
                self.load_again();
                return self.engine.is_loaded();
            }
            Err(error) => {
                if !self.queue.is_closed() {
                    tracing::warn!(%error, "the queue could not be read; trying again");
                }
                (self.pause)(LONGEST_PAUSE);
                return false;
            }
        }
        if self.engine.recent_failure().is_some() {
            self.refuse_queued();
        } else if let Err(sentence) = self.load_for_work() {
            self.remember_failure(sentence);
            self.refuse_queued();
        }
        self.engine.is_loaded()
    }

    /// Tries once more to load an engine that could not be loaded a while ago. Until it is, the endpoint is not ready, so no job
    /// may come that would try.
    fn load_again(&mut self) {
        if self.engine.has_failed() && self.engine.recent_failure().is_none() {
            match self.load_if_it_fits() {
                Err(sentence) => self.remember_failure(sentence),
                Ok(()) if self.engine.is_loaded() => {}
                // Another engine has the memory. A job would get it, and shows whether this one loads.
                Ok(()) => {
                    self.engine.forget_failure();
                    self.entry.note_load(false);
                }
            }
        }
    }

    fn load_for_work(&mut self) -> Result<(), String> {
        if self.engine.reserve()? {
            return self.load();
        }
        self.wait_for_memory();
        Ok(())
    }

    fn load(&mut self) -> Result<(), String> {
        self.entry.set(WorkerState::Initializing);
        self.entry.follow_unload();
        // It belongs to no job: those that wait for it are still in the queue.
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "load",
            job.endpoint = %self.endpoint
        );
        self.engine.load().inspect_err(|_| traces::mark_failed(&span))?;
        drop(span);
        self.entry.note_load(false);
        if let Some(engine) = self.engine.engine() {
            self.metrics.jobs_at_once(&self.endpoint, engine.capacity());
        }
        Ok(())
    }

    fn wait_for_memory(&mut self) {
        self.engine.waits_for_memory = true;
        self.entry.set(WorkerState::Throttled);
    }

    fn remember_failure(&mut self, sentence: String) {
        tracing::error!(endpoint = %self.endpoint, error = sentence, "the engine could not be loaded");
        self.engine.remember_failure(sentence);
        self.entry.note_load(true);
    }

    /// Fails the endpoint's jobs, unless another of its workers has an engine for them.
    fn refuse_queued(&mut self) {
        if self.engine.has_sibling() {
            self.wait_for_memory();
        } else {
            self.fail_queued();
        }
    }

    /// Fails the endpoint's jobs with the reason why there is no engine for them.
    fn fail_queued(&mut self) {
        let Some(sentence) = self.engine.recent_failure().map(str::to_owned) else { return };
        let gpu = self.engine.gpu_label();
        while !self.stop.is_stopping() {
            match self.queue.claim(&self.endpoint, &gpu) {
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

    /// Whether it may take another job. An engine whose memory another one waits for takes none; as soon as it has
    /// no job in hand it is unloaded, and so is one that was idle for long. Without an engine it may: loading one is
    /// decided elsewhere.
    pub(super) fn may_take_jobs(&mut self) -> bool {
        if !self.engine.is_loaded() {
            return true;
        }
        let is_wanted = self.engine.must_unload();
        if self.has_jobs_for_engine() {
            return !is_wanted;
        }
        let is_unwanted =
            self.entry.is_asked_to_unload() || self.engine.idle_time_left() == Some(Duration::ZERO);
        let is_unused = is_unwanted && self.waiting.is_empty() && !self.has_work_now();
        if is_wanted || is_unused {
            tracing::info!(endpoint = %self.endpoint, is_wanted, "the engine is unloaded");
            self.release_waiting();
            self.engine.unload();
            self.entry.follow_unload();
        }
        true
    }

    /// How long to wait for work.
    pub(super) fn patience(&self) -> Duration {
        self.engine.idle_time_left().map_or(IDLE, |left| left.min(IDLE))
    }

    fn has_work_now(&self) -> bool {
        self.queue.has_work(&self.endpoint).unwrap_or(true)
    }
}
