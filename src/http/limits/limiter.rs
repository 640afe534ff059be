//! Keeps count of who asks for what, and says when it is too much.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;

use super::strangers::Strangers;
use super::{Caller, Limit, RateLimits, quota, whole_seconds};
use crate::http::Operation;

/// The counters of all callers. Those of a caller who has been quiet for a window are dropped.
pub struct Limiter<C: Clock = DefaultClock> {
    windows: [Option<Window<C>>; Operation::ALL.len()],
    limits: RateLimits,
    under_way: Arc<UnderWay>,
    pub strangers: Strangers<C>,
}

/// Why a caller has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Window { operation: Operation, limit: u32, retry_after_s: u64 },
    AtOnce { operation: Operation, limit: u32 },
    Strangers { retry_after_s: u64 },
}

/// A request that is counted as under way until this is dropped.
#[derive(Debug, Default)]
pub struct Turn(Option<(Arc<UnderWay>, Caller, Operation)>);

/// How many requests each caller has under way, where that is limited.
type UnderWay = Mutex<HashMap<(Caller, Operation), u32>>;

impl Limiter {
    pub fn new(limits: &RateLimits) -> Self {
        Self::with_clock(limits, &DefaultClock::default())
    }
}

impl<C: Clock + Clone> Limiter<C> {
    fn with_clock(limits: &RateLimits, clock: &C) -> Self {
        Self {
            windows: Operation::ALL
                .map(|operation| Some(Window::new(limits.of(operation).per_window?, clock))),
            limits: limits.clone(),
            under_way: Arc::default(),
            strangers: Strangers::new(limits.unauthorized, clock),
        }
    }

    /// What each caller has.
    pub fn limit(&self, operation: Operation) -> Limit {
        self.limits.of(operation)
    }

    /// Counts a request, which is under way until its turn is dropped.
    pub fn enter(&self, caller: Caller, operation: Operation) -> Result<Turn, Refusal> {
        let turn = self.begin(caller, operation)?;
        let Some(window) = &self.windows[operation as usize] else { return Ok(turn) };
        window.check(&caller).map_err(|wait| Refusal::Window {
            operation,
            limit: window.limit.get(),
            retry_after_s: whole_seconds(wait),
        })?;
        Ok(turn)
    }

    fn begin(&self, caller: Caller, operation: Operation) -> Result<Turn, Refusal> {
        let Some(limit) = self.limits.of(operation).at_once.map(NonZeroU32::get) else {
            return Ok(Turn::default());
        };
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let count = under_way.entry((caller, operation)).or_insert(0);
        if *count >= limit {
            return Err(Refusal::AtOnce { operation, limit });
        }
        *count += 1;
        Ok(Turn(Some((Arc::clone(&self.under_way), caller, operation))))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((under_way, caller, operation)) = self.0.take() else { return };
        let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = under_way.get_mut(&(caller, operation)) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&(caller, operation));
            }
        }
    }
}

/// One limit by the window, for every caller.
pub(super) struct Window<C: Clock, K: std::hash::Hash + Eq + Clone = Caller> {
    limit: NonZeroU32,
    cells: RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    checks: AtomicU32,
}

/// So often the cells of quiet callers are dropped. What is left are those of two windows at most,
/// and so many that came since.
const CHECKS_BETWEEN_DROPS: u32 = 4096;

impl<C: Clock + Clone, K: std::hash::Hash + Eq + Clone> Window<C, K> {
    pub(super) fn new(limit: NonZeroU32, clock: &C) -> Self {
        let cells = RateLimiter::dashmap_with_clock(quota(limit), clock.clone());
        Self { limit, cells, clock: clock.clone(), checks: AtomicU32::new(0) }
    }

    /// Counts one request, or says how long to wait for the next.
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
    use std::net::IpAddr;

    use governor::clock::FakeRelativeClock;

    use super::*;

    const ANN: Caller = Caller::Key([1; 32]);
    const BOB: Caller = Caller::Key([2; 32]);

    fn limiter(limits: &str) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::with_clock(&limits.parse().unwrap(), &clock), clock)
    }

    #[test]
    fn a_window_holds_its_number_and_fills_up_again() {
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
    fn a_turn_counts_for_as_long_as_it_is_held_and_a_refusal_not_at_all() {
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
        assert_eq!(limiter.under_way.lock().unwrap().len(), 1);
        drop(second);
        assert!(limiter.under_way.lock().unwrap().is_empty());
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
    fn limits_that_are_off_refuse_nobody() {
        let (limiter, _) = limiter("off");
        let turns: Result<Vec<_>, _> =
            (0..3_000).map(|_| limiter.enter(ANN, Operation::PurgeQueue)).collect();
        assert!(turns.is_ok());
    }
}
