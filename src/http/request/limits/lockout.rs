//! Makes guessing keys slow: an address that sends too many requests without a valid key is locked out for a while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use governor::clock::{Clock, Reference};

use super::limiter::Window;
use super::{Refusal, WINDOW, whole_seconds};

/// Counts the requests without a valid key of each address.
///
/// A locked address is refused before its key is checked, right or wrong. Otherwise a guesser would only have to
/// look for the answer that differs.
pub struct Lockout<C: Clock> {
    window: Option<Window<C, IpAddr>>,
    /// When the lock on each address ends. Usually no address is locked, and `locked_count` says so without
    /// taking the mutex.
    locked: Mutex<HashMap<IpAddr, C::Instant>>,
    locked_count: AtomicUsize,
    clock: C,
}

impl<C: Clock + Clone> Lockout<C> {
    pub(super) fn new(limit: Option<NonZeroU32>, clock: &C) -> Self {
        Self {
            window: limit.map(|limit| Window::new(limit, clock)),
            locked: Mutex::default(),
            locked_count: AtomicUsize::new(0),
            clock: clock.clone(),
        }
    }

    /// Whether a request from this address may present a key.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.locked_count.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = locked.get(&address).copied() else { return Ok(()) };
        let rest = until.duration_since(now);
        if rest == governor::nanos::Nanos::new(0) {
            locked.remove(&address);
            self.locked_count.store(locked.len(), Ordering::Relaxed);
            return Ok(());
        }
        Err(Refusal::LockedOut { retry_after_s: whole_seconds(rest.into()) })
    }

    /// Counts a request without a valid key.
    pub fn record_failure(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(window) = &self.window else { return Ok(()) };
        if window.check(&address).is_ok() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        locked.retain(|_, until| *until > now);
        locked.insert(address, now + WINDOW.into());
        self.locked_count.store(locked.len(), Ordering::Relaxed);
        Err(Refusal::LockedOut { retry_after_s: WINDOW.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn an_address_that_guesses_too_often_is_locked_out_for_one_window() {
        let clock = FakeRelativeClock::default();
        let lockout = Lockout::new(NonZeroU32::new(3), &clock);
        let [guesser, other] = [[203, 0, 113, 7], [203, 0, 113, 8]].map(IpAddr::from);
        for _ in 0..3 {
            assert_eq!(lockout.check(guesser).and_then(|()| lockout.record_failure(guesser)), Ok(()));
        }
        assert_eq!(lockout.check(guesser), Ok(()));
        assert_eq!(lockout.record_failure(guesser), Err(Refusal::LockedOut { retry_after_s: 10 }));
        assert_eq!(lockout.check(other), Ok(()));
        clock.advance(Duration::from_millis(7_500));
        assert_eq!(lockout.check(guesser), Err(Refusal::LockedOut { retry_after_s: 3 }));
        clock.advance(Duration::from_millis(2_500));
        assert_eq!(lockout.check(guesser), Ok(()));
        assert!(lockout.locked.lock().unwrap().is_empty());
    }

    #[test]
    fn without_a_limit_no_address_is_locked_out() {
        let lockout = Lockout::new(None, &FakeRelativeClock::default());
        let address = IpAddr::from([203, 0, 113, 7]);
        assert!(
            (0..1_000).all(|_| lockout.record_failure(address).is_ok() && lockout.check(address).is_ok())
        );
    }
}
