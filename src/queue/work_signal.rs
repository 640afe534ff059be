//! How workers learn of new work without polling the database.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A generation counter that goes up whenever there may be new work.
///
/// A thread that finds the queue empty notes the generation that it read before. A wait returns at once if the generation
/// has risen since, so no wake-up is lost between a claim that found nothing and the wait that follows. "The queue was
/// empty at generation g" is a fact about the queue, not about a thread, so one g serves all threads.
#[derive(Default)]
pub(super) struct WorkSignal {
    state: Mutex<State>,
    raised: Condvar,
}

#[derive(Default)]
struct State {
    generation: u64,
    empty_at: Option<u64>,
}

impl WorkSignal {
    /// Must be read before the queue is asked for work.
    pub(super) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// The queue was asked after `generation` was read, and was empty.
    pub(super) fn found_empty(&self, generation: u64) {
        let mut state = self.state();
        state.empty_at = state.empty_at.max(Some(generation));
    }

    /// There may be work now, or a reason to stop waiting for it.
    pub(super) fn raise(&self) {
        self.state().generation += 1;
        self.raised.notify_all();
    }

    pub(super) fn wait(&self, timeout: Duration) {
        let idle = |state: &mut State| state.empty_at == Some(state.generation);
        drop(self.raised.wait_timeout_while(self.state(), timeout, idle));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOR_EVER: Duration = Duration::from_hours(1);

    #[test]
    fn work_that_arrives_between_claim_and_wait_is_not_missed() {
        let signal = WorkSignal::default();
        let generation = signal.generation();
        signal.raise();
        signal.found_empty(generation);
        signal.wait(FOR_EVER);
    }

    #[test]
    fn a_wait_on_an_empty_queue_ends_when_work_arrives() {
        let signal = WorkSignal::default();
        signal.found_empty(signal.generation());
        signal.wait(Duration::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| signal.wait(FOR_EVER));
            signal.raise();
        });
    }
}
