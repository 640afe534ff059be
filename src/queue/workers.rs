//! How many workers an endpoint has, and what they are doing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::endpoint_workers::EndpointWorkers;

/// The workers as `/health` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    pub idle: u32,
    pub initializing: u32,
    /// Those that can work: idle and running.
    pub ready: u32,
    pub running: u32,
    /// Those that have jobs, but wait for memory on their device.
    pub throttled: u32,
}

/// What one worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Loading its engine.
    Initializing,
    /// Waiting for memory for its engine.
    Throttled,
    /// Ready to take the next job. If it has no engine, it loads one first.
    Idle,
    Running,
}

/// One worker's entry in the counts. Dropping it removes the worker from them.
pub struct WorkerEntry {
    endpoint: Arc<EndpointWorkers>,
    state: WorkerState,
    /// The requests to unload that it has followed, or that came before it had an engine.
    unloads_seen: u64,
}

/// The workers in each state.
#[derive(Default)]
pub(super) struct StateCounters([AtomicU32; 4]);

impl StateCounters {
    pub(super) fn counts(&self) -> WorkerCounts {
        let [initializing, throttled, idle, running] =
            [0, 1, 2, 3].map(|state| self.0[state].load(Ordering::SeqCst));
        WorkerCounts { idle, initializing, ready: idle + running, running, throttled }
    }

    fn counter(&self, state: WorkerState) -> &AtomicU32 {
        &self.0[state as usize]
    }
}

impl WorkerEntry {
    pub(super) fn new(endpoint: Arc<EndpointWorkers>) -> Self {
        let state = WorkerState::Initializing;
        endpoint.counters.counter(state).fetch_add(1, Ordering::SeqCst);
        let unloads_seen = endpoint.unloads();
        Self { endpoint, state, unloads_seen }
    }

    /// Whether it was asked to unload its engine since the last [`Self::follow_unload`].
    pub fn is_asked_to_unload(&self) -> bool {
        self.unloads_seen != self.endpoint.unloads()
    }

    /// It has no engine now, or a new one: what was asked before is done.
    pub fn follow_unload(&mut self) {
        self.unloads_seen = self.endpoint.unloads();
    }

    pub fn set(&mut self, state: WorkerState) {
        self.endpoint.counters.counter(self.state).fetch_sub(1, Ordering::SeqCst);
        self.endpoint.counters.counter(state).fetch_add(1, Ordering::SeqCst);
        self.state = state;
    }
}

impl Drop for WorkerEntry {
    fn drop(&mut self) {
        self.endpoint.counters.counter(self.state).fetch_sub(1, Ordering::SeqCst);
    }
}
