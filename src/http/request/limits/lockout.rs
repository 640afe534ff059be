//! Makes guessing keys slow: an address that sends too many wrong keys is locked out for a while.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use governor::clock::{Clock, Reference};

use super::limiter::Window;
use super::{Refusal, WINDOW, whole_seconds};

/// Counts the wrong keys of each address.
///
/// A locked address is refused before its key is checked, right or wrong. Otherwise a guesser would only have to
/// look for the answer that differs. Two kinds of address are never locked: those that sent a right key before, since their
/// clients must not suffer from a neighbour's mistakes, and this machine itself.
pub struct Lockout<C: Clock> {
    window: Option<Window<C, IpAddr>>,
    /// When the lock on each address ends. Usually no address is locked, and `locked_count` says so without
    /// taking the mutex.
    locked: Mutex<HashMap<IpAddr, C::Instant>>,
    locked_count: AtomicUsize,
    /// Addresses that sent a right key.
    known: Mutex<HashSet<IpAddr>>,
    clock: C,
}

/// The most addresses with a right key that are remembered. Only holders of a key can add one.
const MOST_KNOWN: usize = 10_000;

impl<C: Clock + Clone> Lockout<C> {
    pub(super) fn new(limit: Option<NonZeroU32>, clock: &C) -> Self {
        Self {
            window: limit.map(|limit| Window::new(limit, clock)),
            locked: Mutex::default(),
            locked_count: AtomicUsize::new(0),
            known: Mutex::default(),
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

    /// Remembers an address that sent a right key.
    pub fn record_success(&self, address: IpAddr) {
        if self.window.is_some() && !address.is_loopback() {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < MOST_KNOWN {
                known.insert(address);
            }
        }
    }

    /// Counts a wrong key.
    pub fn record_failure(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(window) = &self.window else { return Ok(()) };
        let is_known = || self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&address);
        if address.is_loopback() || is_known() || window.check(&address).is_ok() {
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
    fn this_machine_and_addresses_with_a_right_key_are_never_locked_out() {
        let lockout = Lockout::new(NonZeroU32::new(1), &FakeRelativeClock::default());
        let client = IpAddr::from([203, 0, 113, 7]);
        lockout.record_success(client);
        for address in [client, IpAddr::from([127, 0, 0, 1]), std::net::Ipv6Addr::LOCALHOST.into()] {
            for _ in 0..9 {
                assert_eq!(lockout.record_failure(address).and_then(|()| lockout.check(address)), Ok(()));
            }
        }
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
