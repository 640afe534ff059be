//! How the threads behind the queue are told to stop, and how long they may take.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Shared by those who stop and those who are stopped; clones are the same one.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<Option<Instant>>, Condvar)>);

impl Stop {
    /// Asks everybody to stop: no new work from now on, and what is under way is let go of after `grace`.
    /// Whoever waits for work must be woken besides ([`super::JobQueue::wake_workers`]).
    pub fn stop(&self, grace: Duration) {
        *self.deadline() = Some(Instant::now() + grace);
        self.0.1.notify_all();
    }

    pub fn is_stopping(&self) -> bool {
        self.deadline().is_some()
    }

    pub fn grace_is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Sleeps, but not at all once it is asked to stop.
    pub fn rest(&self, duration: Duration) {
        drop(self.0.1.wait_timeout_while(self.deadline(), duration, |deadline| deadline.is_none()));
    }

    /// Sleeps, but not beyond the moment at which it is asked to stop or, once it was, the grace.
    pub fn pause(&self, duration: Duration) {
        let deadline = self.deadline();
        match *deadline {
            None => drop(self.0.1.wait_timeout_while(deadline, duration, |deadline| deadline.is_none())),
            Some(end) => {
                drop(deadline);
                std::thread::sleep(duration.min(end.saturating_duration_since(Instant::now())));
            }
        }
    }

    fn deadline(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
