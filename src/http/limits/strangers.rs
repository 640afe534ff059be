//! Makes guessing keys slow: an address that sends too many wrong ones is not listened to for a while.

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
/// An address over the limit is turned away before its key is looked at, right or wrong: otherwise a
/// guesser would only have to look for the answer that differs.
pub struct Strangers<C: Clock> {
    window: Option<Window<C, IpAddr>>,
    /// Until when each address is turned away. Mostly there is none, which `barred_count` tells
    /// without the lock.
    barred: Mutex<HashMap<IpAddr, C::Instant>>,
    barred_count: AtomicUsize,
    clock: C,
}

impl<C: Clock + Clone> Strangers<C> {
    pub(super) fn new(limit: Option<NonZeroU32>, clock: &C) -> Self {
        Self {
            window: limit.map(|limit| Window::new(limit, clock)),
            barred: Mutex::default(),
            barred_count: AtomicUsize::new(0),
            clock: clock.clone(),
        }
    }

    /// Whether a request from there may present a key.
    pub fn admit(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.barred_count.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = barred.get(&address).copied() else { return Ok(()) };
        let rest = until.duration_since(now);
        if rest == governor::nanos::Nanos::new(0) {
            barred.remove(&address);
            self.barred_count.store(barred.len(), Ordering::Relaxed);
            return Ok(());
        }
        Err(Refusal::Strangers { retry_after_s: whole_seconds(rest.into()) })
    }

    /// Counts a request without a valid key.
    pub fn note(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(window) = &self.window else { return Ok(()) };
        if window.check(&address).is_ok() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut barred = self.barred.lock().unwrap_or_else(PoisonError::into_inner);
        barred.retain(|_, until| *until > now);
        barred.insert(address, now + WINDOW.into());
        self.barred_count.store(barred.len(), Ordering::Relaxed);
        Err(Refusal::Strangers { retry_after_s: WINDOW.as_secs() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn who_guesses_too_often_is_not_listened_to_for_a_window() {
        let clock = FakeRelativeClock::default();
        let strangers = Strangers::new(NonZeroU32::new(3), &clock);
        let [guesser, other] = [[203, 0, 113, 7], [203, 0, 113, 8]].map(IpAddr::from);
        for _ in 0..3 {
            assert_eq!(strangers.admit(guesser).and_then(|()| strangers.note(guesser)), Ok(()));
        }
        assert_eq!(strangers.admit(guesser), Ok(()));
        assert_eq!(strangers.note(guesser), Err(Refusal::Strangers { retry_after_s: 10 }));
        assert_eq!(strangers.admit(other), Ok(()));
        clock.advance(Duration::from_millis(7_500));
        assert_eq!(strangers.admit(guesser), Err(Refusal::Strangers { retry_after_s: 3 }));
        clock.advance(Duration::from_millis(2_500));
        assert_eq!(strangers.admit(guesser), Ok(()));
        assert!(strangers.barred.lock().unwrap().is_empty());
    }

    #[test]
    fn without_a_limit_nobody_is_turned_away() {
        let strangers = Strangers::new(None, &FakeRelativeClock::default());
        let address = IpAddr::from([203, 0, 113, 7]);
        assert!((0..1_000).all(|_| strangers.note(address).is_ok() && strangers.admit(address).is_ok()));
    }
}
