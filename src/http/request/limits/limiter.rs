//! Counts the requests of each caller and operation, and refuses those over the limit.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;

use super::lockout::Lockout;
use super::{Caller, Limit, RateLimits, quota, whole_seconds};
use crate::http::request::Operation;

/// The counters of all callers. A caller's counters are dropped after a window without requests.
pub struct Limiter<C: Clock = DefaultClock> {
    windows: [Option<Window<C>>; Operation::ALL.len()],
    limits: RateLimits,
    in_flight: Arc<InFlightCounts>,
    keyless: Option<Window<C, IpAddr>>,
    pub lockout: Lockout<C>,
}

/// Why a caller has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Window { operation: Operation, limit: u32, retry_after_s: u64 },
    Keyless { limit: u32, retry_after_s: u64 },
    AtOnce { operation: Operation, limit: u32 },
    LockedOut { retry_after_s: u64 },
}

/// A request in flight: it counts until this guard is dropped.
#[derive(Debug, Default)]
pub struct InFlight(Option<(Arc<InFlightCounts>, Caller, Operation)>);

/// How many requests each caller has in flight, for the operations that have such a limit.
type InFlightCounts = Mutex<HashMap<(Caller, Operation), u32>>;

impl Limiter {
    pub fn new(limits: &RateLimits) -> Self {
        Self::with_clock(limits, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn with_clock(limits: &RateLimits, clock: &C) -> Self {
        Self {
            windows: Operation::ALL
                .map(|operation| Some(Window::new(limits.limit(operation).per_window?, clock))),
            limits: limits.clone(),
            in_flight: Arc::default(),
            keyless: limits.keyless.map(|limit| Window::new(limit, clock)),
            lockout: Lockout::new(limits.unauthorized, clock),
        }
    }

    /// The limit of each caller.
    pub fn limit(&self, operation: Operation) -> Limit {
        self.limits.limit(operation)
    }

    /// Counts a request. It is in flight until the guard is dropped.
    pub fn enter(&self, caller: Caller, operation: Operation) -> Result<InFlight, Refusal> {
        let in_flight = self.begin(caller, operation)?;
        let Some(window) = &self.windows[operation as usize] else { return Ok(in_flight) };
        window.check(&caller).map_err(|wait| Refusal::Window {
            operation,
            limit: window.limit.get(),
            retry_after_s: whole_seconds(wait),
        })?;
        Ok(in_flight)
    }

    /// Counts a request from `address` for something that needs no key.
    pub fn enter_keyless(&self, address: IpAddr) -> Result<(), Refusal> {
        let Some(window) = &self.keyless else { return Ok(()) };
        window.check(&address).map_err(|wait| Refusal::Keyless {
            limit: window.limit.get(),
            retry_after_s: whole_seconds(wait),
        })
    }

    fn begin(&self, caller: Caller, operation: Operation) -> Result<InFlight, Refusal> {
        let Some(limit) = self.limits.limit(operation).at_once.map(NonZeroU32::get) else {
            return Ok(InFlight::default());
        };
        let mut counts = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((caller, operation)).or_insert(0);
        if *count >= limit {
            return Err(Refusal::AtOnce { operation, limit });
        }
        *count += 1;
        Ok(InFlight(Some((Arc::clone(&self.in_flight), caller, operation))))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some((counts, caller, operation)) = self.0.take() else { return };
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&(caller, operation)) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&(caller, operation));
            }
        }
    }
}

/// One limit in a window, for every caller.
pub(super) struct Window<C: Clock, K: std::hash::Hash + Eq + Clone = Caller> {
    limit: NonZeroU32,
    cells: RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    checks: AtomicU32,
}

/// After this many checks the cells of quiet callers are dropped. That keeps the cells of two windows at most, plus
/// those that came since.
const CHECKS_BETWEEN_DROPS: u32 = 4096;

impl<C: Clock + Clone, K: std::hash::Hash + Eq + Clone> Window<C, K> {
    pub(super) fn new(limit: NonZeroU32, clock: &C) -> Self {
        let cells = RateLimiter::dashmap_with_clock(quota(limit), clock.clone());
        Self { limit, cells, clock: clock.clone(), checks: AtomicU32::new(0) }
    }

    /// Counts one request, or returns how long to wait.
    pub(super) fn check(&self, key: &K) -> Result<(), Duration> {
        if self.checks.fetch_add(1, Ordering::Relaxed) % CHECKS_BETWEEN_DROPS == CHECKS_BETWEEN_DROPS - 1 {
            self.cells.retain_recent();
            self.cells.shrink_to_fit();
        }
        self.cells.check_key(key).map_err(|early| early.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const ANN: Caller = Caller::Key([1; 32]);
    const BOB: Caller = Caller::Key([2; 32]);

    fn limiter(limits: &str) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with_clock(&limits.parse().unwrap(), &clock), clock)
    }

    #[test]
    fn a_window_allows_its_limit_and_refills() {
        let (limiter, clock) = limiter("purge-queue=2");
        let enter = || limiter.enter(ANN, Operation::PurgeQueue).map(drop);
        assert!(enter().is_ok() && enter().is_ok());
        let refusal = Refusal::Window { operation: Operation::PurgeQueue, limit: 2, retry_after_s: 5 };
        assert_eq!(enter(), Err(refusal));
        clock.advance(Duration::from_millis(4_999));
        assert!(enter().is_err());
        clock.advance(Duration::from_millis(1));
        assert!(enter().is_ok() && enter().is_err());
        clock.advance(Duration::from_secs(10));
        assert!(enter().is_ok() && enter().is_ok() && enter().is_err());
    }

    #[test]
    fn callers_and_operations_are_counted_apart() {
        let (limiter, _) = limiter("run=1,cancel=1");
        assert!(limiter.enter(ANN, Operation::Run).is_ok());
        assert!(limiter.enter(ANN, Operation::Run).is_err());
        assert!(limiter.enter(BOB, Operation::Run).is_ok());
        assert!(limiter.enter(ANN, Operation::Cancel).is_ok());
    }

    #[test]
    fn a_request_counts_while_it_is_in_flight_and_a_refusal_never_does() {
        let (limiter, _) = limiter("runsync=3/2");
        let first = limiter.enter(ANN, Operation::RunSync).unwrap();
        let second = limiter.enter(ANN, Operation::RunSync).unwrap();
        for _ in 0..5 {
            let refusal = limiter.enter(ANN, Operation::RunSync).unwrap_err();
            assert_eq!(refusal, Refusal::AtOnce { operation: Operation::RunSync, limit: 2 });
        }
        drop(first);
        // Had those refusals been counted against the window, this would be too many.
        assert!(limiter.enter(ANN, Operation::RunSync).is_ok());
        assert!(matches!(limiter.enter(ANN, Operation::RunSync), Err(Refusal::Window { .. })));
        assert_eq!(limiter.in_flight.lock().unwrap().len(), 1);
        drop(second);
        assert!(limiter.in_flight.lock().unwrap().is_empty());
    }

    #[test]
    fn an_address_without_a_key_has_a_limit_too() {
        let (limiter, clock) = limiter("keyless=2");
        let enter = |last: u8| limiter.enter_keyless(IpAddr::from([192, 0, 2, last]));
        assert!(enter(1).is_ok() && enter(1).is_ok() && enter(2).is_ok());
        assert_eq!(enter(1), Err(Refusal::Keyless { limit: 2, retry_after_s: 5 }));
        clock.advance(Duration::from_secs(5));
        assert!(enter(1).is_ok());
    }

    #[test]
    fn quiet_callers_are_dropped() {
        let (limiter, clock) = limiter("run=1");
        for n in 0..CHECKS_BETWEEN_DROPS * 3 {
            let _ = limiter.enter(Caller::Address(IpAddr::from(n.to_be_bytes())), Operation::Run);
            clock.advance(Duration::from_millis(10));
        }
        let cells = limiter.windows[Operation::Run as usize].as_ref().unwrap().cells.len();
        assert!(cells <= 2_100, "{cells}");
    }

    #[test]
    fn limits_that_are_off_refuse_no_request() {
        let (limiter, _) = limiter("off");
        let requests: Result<Vec<_>, _> =
            (0..3_000).map(|_| limiter.enter(ANN, Operation::PurgeQueue)).collect();
        assert!(requests.is_ok());
    }
}
