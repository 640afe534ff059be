//! How many workers an endpoint has, what they are doing, and whether each still makes progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::board::locked;
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

/// How long a worker may take for one turn with its jobs. The longest turns are steps and decodings of large pictures on a
/// CPU, which take minutes; a worker that takes longer is stuck, as in a driver that never answers.
const LONGEST_TURN: Duration = Duration::from_mins(15);

/// One worker's entry in the counts. Dropping it removes the worker from them.
pub struct WorkerEntry {
    endpoint: Arc<EndpointWorkers>,
    number: u64,
    /// The requests to unload that it has followed, or that came before it had an engine.
    unloads_seen: u64,
}

/// What the workers of one endpoint are doing.
#[derive(Default)]
pub(super) struct States(Mutex<Table>);

#[derive(Default)]
struct Table {
    last_number: u64,
    workers: HashMap<u64, Known>,
    /// Whether one of them has been able to work.
    has_been_ready: bool,
}

/// What is known of one worker.
struct Known {
    state: WorkerState,
    /// When it was last heard of.
    since: Instant,
    /// Whether its engine could not be loaded, the last time that it tried.
    lacks_engine: bool,
}

impl States {
    pub(super) fn counts(&self) -> WorkerCounts {
        let mut counts = WorkerCounts::default();
        for Known { state, .. } in locked(&self.0).workers.values() {
            *match state {
                WorkerState::Initializing => &mut counts.initializing,
                WorkerState::Throttled => &mut counts.throttled,
                WorkerState::Idle => &mut counts.idle,
                WorkerState::Running => &mut counts.running,
            } += 1;
        }
        counts.ready = counts.idle + counts.running;
        counts
    }

    /// Whether there are workers, of which one has been able to work. One that loads its engine again later counts.
    pub(super) fn have_been_ready(&self) -> bool {
        let table = locked(&self.0);
        table.has_been_ready && !table.workers.is_empty()
    }

    /// The same, and one of them can load its engine as far as it knows.
    pub(super) fn can_draw(&self) -> bool {
        let table = locked(&self.0);
        table.has_been_ready && table.workers.values().any(|worker| !worker.lacks_engine)
    }

    /// Whether none has been at one turn with its jobs for too long at `now`.
    pub(super) fn make_progress(&self, now: Instant) -> bool {
        let is_stuck = |worker: &Known| {
            let quiet = now.saturating_duration_since(worker.since);
            worker.state == WorkerState::Running && quiet > LONGEST_TURN
        };
        !locked(&self.0).workers.values().any(is_stuck)
    }

    fn enter(&self) -> u64 {
        let mut table = locked(&self.0);
        table.last_number += 1;
        let number = table.last_number;
        let (state, since) = (WorkerState::Initializing, Instant::now());
        table.workers.insert(number, Known { state, since, lacks_engine: false });
        number
    }

    /// Notes that a worker makes progress, and its state if it is a new one.
    fn note(&self, number: u64, new: Option<WorkerState>) {
        let mut table = locked(&self.0);
        table.has_been_ready |= matches!(new, Some(WorkerState::Idle | WorkerState::Running));
        if let Some(worker) = table.workers.get_mut(&number) {
            worker.state = new.unwrap_or(worker.state);
            worker.since = Instant::now();
        }
    }

    fn note_load(&self, number: u64, has_failed: bool) {
        if let Some(worker) = locked(&self.0).workers.get_mut(&number) {
            worker.lacks_engine = has_failed;
        }
    }

    fn leave(&self, number: u64) {
        locked(&self.0).workers.remove(&number);
    }
}

impl WorkerEntry {
    pub(super) fn new(endpoint: Arc<EndpointWorkers>) -> Self {
        let (number, unloads_seen) = (endpoint.states.enter(), endpoint.unloads());
        Self { endpoint, number, unloads_seen }
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
        self.endpoint.states.note(self.number, Some(state));
    }

    /// Says whether its engine could not be loaded.
    pub fn note_load(&self, has_failed: bool) {
        self.endpoint.states.note_load(self.number, has_failed);
    }

    /// Says that the worker still makes progress, for whoever watches it.
    pub fn note_progress(&self) {
        self.endpoint.states.note(self.number, None);
    }
}

impl Drop for WorkerEntry {
    fn drop(&mut self) {
        self.endpoint.states.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_is_at_one_step_for_too_long_makes_no_progress() {
        let endpoint = Arc::new(EndpointWorkers::default());
        let mut entry = WorkerEntry::new(Arc::clone(&endpoint));
        let later = || Instant::now() + LONGEST_TURN + Duration::from_secs(1);
        // Loading a model may take long, and a worker without a job has nothing to do.
        for state in [WorkerState::Initializing, WorkerState::Throttled, WorkerState::Idle] {
            entry.set(state);
            assert!(endpoint.states.make_progress(later()), "{state:?}");
        }
        entry.set(WorkerState::Running);
        assert!(endpoint.states.make_progress(Instant::now()));
        assert!(!endpoint.states.make_progress(later()));
        drop(entry);
        assert!(endpoint.states.make_progress(later()));
    }

    #[test]
    fn an_endpoint_has_been_ready_once_a_worker_was() {
        let endpoint = Arc::new(EndpointWorkers::default());
        assert!(!endpoint.states.have_been_ready());
        let mut entry = WorkerEntry::new(Arc::clone(&endpoint));
        assert!(!endpoint.states.have_been_ready());
        entry.set(WorkerState::Idle);
        entry.set(WorkerState::Initializing);
        assert!(endpoint.states.have_been_ready());
        assert_eq!(endpoint.states.counts(), WorkerCounts { initializing: 1, ..WorkerCounts::default() });
        entry.note_load(true);
        assert!(endpoint.states.have_been_ready() && !endpoint.states.can_draw());
        let mut other = WorkerEntry::new(Arc::clone(&endpoint));
        other.set(WorkerState::Idle);
        assert!(endpoint.states.can_draw(), "another worker has an engine");
        drop(other);
        entry.note_load(false);
        assert!(endpoint.states.can_draw());
        drop(entry);
        assert!(!endpoint.states.have_been_ready() && !endpoint.states.can_draw());
    }
}
