//! How background threads are asked to stop, and how long they may take.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request to stop, shared by those who make it and those who obey it. A clone is another handle to the same one.
#[derive(Clone, Default)]
pub struct Stop(Arc<(Mutex<Option<Instant>>, Condvar)>);

impl Stop {
    /// Asks all threads to stop: they begin no new work, and give up the work under way after `grace`. Those that wait
    /// for work must also be woken ([`super::JobQueue::wake_workers`]).
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

    /// Sleeps for `duration`, or until the request to stop comes.
    pub fn rest(&self, duration: Duration) {
        drop(self.0.1.wait_timeout_while(self.deadline(), duration, |deadline| deadline.is_none()));
    }

    /// Sleeps for `duration`, or until the request to stop comes. After that request, sleeps at most until the grace is
    /// over.
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
