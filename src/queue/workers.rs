//! How many workers an endpoint has, and what they are at.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::desks::Desk;

/// The workers as `/health` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerCounts {
    pub idle: u32,
    pub initializing: u32,
    /// Those that can work, whether or not they do: idle and running.
    pub ready: u32,
    pub running: u32,
    /// Those that have jobs and wait for room in their device's memory.
    pub throttled: u32,
}

/// What one worker is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// Building its engine.
    Initializing,
    /// Waiting for room for its engine.
    Throttled,
    /// It takes the next job, building its engine first if it has none.
    Idle,
    Running,
}

/// One worker's entry, which leaves with it.
pub struct WorkerEntry {
    desk: Arc<Desk>,
    state: WorkerState,
}

#[derive(Default)]
pub(super) struct Tally([AtomicU32; 4]);

impl Tally {
    pub(super) fn counts(&self) -> WorkerCounts {
        let [initializing, throttled, idle, running] =
            [0, 1, 2, 3].map(|state| self.0[state].load(Ordering::SeqCst));
        WorkerCounts { idle, initializing, ready: idle + running, running, throttled }
    }

    fn of(&self, state: WorkerState) -> &AtomicU32 {
        &self.0[state as usize]
    }
}

impl WorkerEntry {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        let state = WorkerState::Initializing;
        desk.workers.of(state).fetch_add(1, Ordering::SeqCst);
        Self { desk, state }
    }

    pub fn set(&mut self, state: WorkerState) {
        self.desk.workers.of(self.state).fetch_sub(1, Ordering::SeqCst);
        self.desk.workers.of(state).fetch_add(1, Ordering::SeqCst);
        self.state = state;
    }
}

impl Drop for WorkerEntry {
    fn drop(&mut self) {
        self.desk.workers.of(self.state).fetch_sub(1, Ordering::SeqCst);
    }
}
