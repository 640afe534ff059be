//! A value that a thread of its own reads from files, so that no request waits for a slow or hung disk.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a request waits for a newer value where there is an older one.
const PATIENCE: Duration = Duration::from_millis(100);
/// The least time that it waits for the first value.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// How long the start waits for the first value: jobs that go on after a restart name what is in the folders.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// The value, read again when it is asked for and old. The thread ends when this is dropped.
pub(super) struct Refreshed<T> {
    shared: Arc<Shared<T>>,
    /// How old a value may be.
    look_every: Duration,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    value: Arc<T>,
    /// How many readings were asked for, begun and done.
    asked: u64,
    begun: u64,
    done: u64,
    /// When the last reading began.
    begun_at: Instant,
    is_over: bool,
}

impl<T: Default + Send + Sync + 'static> Refreshed<T> {
    /// Reads at once, and waits for that for some seconds. `read` gets the value before.
    pub fn new(look_every: Duration, read: impl FnMut(&T) -> T + Send + 'static) -> Self {
        let state = State {
            value: Arc::default(),
            asked: 1,
            begun: 0,
            done: 0,
            begun_at: Instant::now(),
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let reader = Arc::clone(&shared);
        let spawned = thread::Builder::new().name("folders".to_owned()).spawn(move || reader.run(read));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread to read a folder on: it counts as empty");
            shared.state().is_over = true;
        }
        let is_unread = |state: &mut State<T>| state.done == 0 && !state.is_over;
        drop(shared.changed.wait_timeout_while(shared.state(), START_PATIENCE, is_unread));
        Self { shared, look_every }
    }

    /// The value as of at most the age that was asked for; an older one if it takes long to read, and an empty one if it was
    /// never read.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.shared.state();
        if state.done > 0 && state.done == state.begun && state.begun_at.elapsed() < self.look_every {
            return Arc::clone(&state.value);
        }
        if state.asked == state.begun {
            state.asked += 1;
            self.shared.changed.notify_all();
        }
        let target = state.asked;
        let patience = if state.done == 0 { self.look_every.max(FIRST_PATIENCE) } else { PATIENCE };
        // A reading that is late already is not waited for again.
        let is_late = state.begun > state.done && state.begun_at.elapsed() >= patience;
        if !is_late {
            let waited = self
                .shared
                .changed
                .wait_timeout_while(state, patience, |state| state.done < target && !state.is_over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Arc::clone(&state.value)
    }
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut read: impl FnMut(&T) -> T) {
        loop {
            let idle = |state: &mut State<T>| state.begun == state.asked && !state.is_over;
            let waited = self.changed.wait_while(self.state(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.is_over {
                return;
            }
            state.begun = state.asked;
            state.begun_at = Instant::now();
            let before = Arc::clone(&state.value);
            drop(state);
            let value = catch_unwind(AssertUnwindSafe(|| read(&before))).map_or_else(
                |_| {
                    tracing::error!("reading a folder panicked: what was known of it stays");
                    before
                },
                Arc::new,
            );
            let mut state = self.state();
            state.value = value;
            state.done = state.begun;
            drop(state);
            self.changed.notify_all();
        }
    }
}

impl<T> Drop for Refreshed<T> {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl<T> fmt::Debug for Refreshed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed").field("look_every", &self.look_every).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_value_is_read_again_only_when_it_is_old() {
        let next = |before: &u32| before + 1;
        let kept = Refreshed::new(Duration::from_mins(1), next);
        assert_eq!((*kept.get(), *kept.get()), (1, 1));
        let fresh = Refreshed::new(Duration::ZERO, next);
        let first = *fresh.get();
        assert_eq!(*fresh.get(), first + 1);
    }

    #[test]
    fn a_reading_that_hangs_keeps_nobody_waiting() {
        let (sender, receiver) = channel::<()>();
        let value = Refreshed::new(Duration::ZERO, move |before: &u32| {
            if *before > 1 {
                let _ = receiver.recv();
            }
            before + 1
        });
        while *value.get() < 2 {}
        // One request waits a little, the others not at all.
        assert_eq!(*value.get(), 2);
        let started = Instant::now();
        for _ in 0..1_000 {
            assert_eq!(*value.get(), 2);
        }
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(sender);
        while *value.get() < 3 {
            thread::yield_now();
        }
    }

    #[test]
    fn its_thread_ends_with_it() {
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        let value = Refreshed::new(Duration::ZERO, move |(): &()| drop(Arc::clone(&held)));
        value.get();
        drop(value);
        while Arc::strong_count(&alive) > 1 {
            thread::yield_now();
        }
    }
}
