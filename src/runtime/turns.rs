//! Turns on the cores of this machine.
//!
//! A session runs on a fixed number of threads: with another number, the last bits of its results would be others. Two
//! sessions whose threads are more than the cores slow each other down, by a tenth where their runs are long (measured). So
//! a long run first takes as many cores as it has threads, and waits until they are free. Who asked first gets them first.

use std::collections::VecDeque;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use super::cores::physical_cores;

/// All cores that this process may use.
static MACHINE: LazyLock<Cores> = LazyLock::new(|| Cores::new(physical_cores()));

/// Takes the cores for a run on so many threads, or all there are. One thread must not take two turns at a time.
pub fn take_cores(threads: usize) -> CoreTurn<'static> {
    MACHINE.take(threads)
}

struct Cores {
    count: usize,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    free: usize,
    /// The turns that wait, the first one first.
    waiting: VecDeque<u64>,
    next: u64,
}

/// Some cores, until it is dropped.
pub struct CoreTurn<'a> {
    cores: &'a Cores,
    taken: usize,
}

impl Cores {
    fn new(count: usize) -> Self {
        let state = Mutex::new(State { free: count, waiting: VecDeque::new(), next: 0 });
        Self { count, state, changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, threads: usize) -> CoreTurn<'_> {
        let taken = threads.min(self.count);
        let mut state = self.state();
        let turn = state.next;
        state.next += 1;
        state.waiting.push_back(turn);
        while state.waiting.front() != Some(&turn) || state.free < taken {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.pop_front();
        state.free -= taken;
        // The next one may need fewer than are left.
        self.changed.notify_all();
        CoreTurn { cores: self, taken }
    }
}

impl Drop for CoreTurn<'_> {
    fn drop(&mut self) {
        self.cores.state().free += self.taken;
        self.cores.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::{self, Scope};

    use super::*;

    /// Takes a turn on another thread. Tells when it has it, and keeps it until the sender is dropped.
    fn taker<'s>(
        scope: &'s Scope<'s, '_>,
        cores: &'s Cores,
        threads: usize,
    ) -> (Receiver<()>, std::sync::mpsc::Sender<()>) {
        let ((took, has_taken), (keep, kept)) = (channel(), channel::<()>());
        scope.spawn(move || {
            let _turn = cores.take(threads);
            took.send(()).unwrap();
            let _ = kept.recv();
        });
        (has_taken, keep)
    }

    fn wait_for(cores: &Cores, waiting: usize) {
        while cores.state().waiting.len() != waiting {
            thread::yield_now();
        }
    }

    #[test]
    fn runs_that_fit_on_the_cores_run_at_the_same_time() {
        let cores = Cores::new(4);
        let (_two, _one, _another) = (cores.take(2), cores.take(1), cores.take(1));
        assert_eq!(cores.state().free, 0);
    }

    #[test]
    fn a_run_waits_for_its_cores_and_nobody_overtakes_it() {
        let cores = Cores::new(2);
        thread::scope(|scope| {
            let first = cores.take(1);
            let (large, end_large) = taker(scope, &cores, 2);
            wait_for(&cores, 1);
            // There is a core for it, but the large one was here before.
            let (small, _end_small) = taker(scope, &cores, 1);
            wait_for(&cores, 2);
            assert!(large.try_recv().is_err() && small.try_recv().is_err());
            drop(first);
            large.recv().unwrap();
            assert!(small.try_recv().is_err());
            drop(end_large);
            small.recv().unwrap();
        });
        assert_eq!(cores.state().free, 2);
    }

    #[test]
    fn more_threads_than_cores_take_all_cores() {
        let cores = Cores::new(2);
        drop(cores.take(100));
        assert_eq!(cores.state().free, 2);
    }
}
