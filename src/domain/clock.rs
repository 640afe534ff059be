//! The time. The clock is passed in, so that a test can set it.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Milliseconds since the Unix epoch, as the database stores them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The time since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    pub fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(ms))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_sub(ms))
    }
}

/// The source of time. It never goes back: if somebody sets the machine's clock back, this clock continues at the pace of
/// the machine's steady clock, so that nothing expires late or early. If the machine's clock jumps forward, or the
/// machine slept, this clock follows. Clones share their state.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

struct Source {
    wall: Box<dyn Fn() -> Timestamp + Send + Sync>,
    steady: Box<dyn Fn() -> Duration + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    /// A time, with the reading of the steady clock at that time.
    anchor: (Timestamp, Duration),
    latest: Timestamp,
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        let start = Instant::now();
        Self::new(|| Timestamp(chrono::Utc::now().timestamp_millis()), move || start.elapsed())
    }

    /// A clock that stands still. The returned cell sets it, in ms since the epoch.
    pub fn manual(start: Timestamp) -> (Self, Arc<AtomicI64>) {
        let now = Arc::new(AtomicI64::new(start.0));
        let (wall, steady) = (Arc::clone(&now), Arc::clone(&now));
        let clock = Self::new(
            move || Timestamp(wall.load(Ordering::SeqCst)),
            move || Timestamp(steady.load(Ordering::SeqCst)).since(start),
        );
        (clock, now)
    }

    fn new(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> Self {
        let state = State { anchor: (wall(), steady()), latest: wall() };
        Self(Arc::new(Source { wall: Box::new(wall), steady: Box::new(steady), state: Mutex::new(state) }))
    }

    pub fn now(&self) -> Timestamp {
        let mut state = self.state();
        let (wall, steady) = ((self.0.wall)(), (self.0.steady)());
        let (time, then) = state.anchor;
        if wall > time + steady.saturating_sub(then) {
            state.anchor = (wall, steady);
        }
        let (time, then) = state.anchor;
        state.latest = state.latest.max(time + steady.saturating_sub(then));
        state.latest
    }

    /// Moves the clock forward to at least `time`, which an earlier run has seen.
    pub fn advance_to(&self, time: Timestamp) {
        let steady = (self.0.steady)();
        if time > self.now() {
            self.state().anchor = (time, steady);
        }
    }

    /// The machine's own clock, for comparison with other machines' clocks.
    pub fn time_of_day(&self) -> Timestamp {
        (self.0.wall)()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({:?})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock with its two sources, the wall clock and the steady clock, in ms.
    fn clock() -> (Clock, Arc<AtomicI64>, Arc<AtomicI64>) {
        let hands = [1_000_000, 0].map(|start| Arc::new(AtomicI64::new(start)));
        let [wall, steady] = hands.clone();
        let clock = Clock::new(
            move || Timestamp(wall.load(Ordering::SeqCst)),
            move || Duration::from_millis(steady.load(Ordering::SeqCst).unsigned_abs()),
        );
        let [wall, steady] = hands;
        (clock, wall, steady)
    }

    #[test]
    fn after_a_step_back_it_follows_the_steady_clock() {
        let (clock, wall, steady) = clock();
        let pass = |ms: i64| {
            wall.fetch_add(ms, Ordering::SeqCst);
            steady.fetch_add(ms, Ordering::SeqCst);
        };
        pass(500);
        assert_eq!(clock.now(), Timestamp(1_000_500));
        wall.fetch_sub(900_000, Ordering::SeqCst);
        assert_eq!(clock.now(), Timestamp(1_000_500));
        for second in 1..=3 {
            pass(1_000);
            assert_eq!(clock.now(), Timestamp(1_000_500 + second * 1_000));
        }
        assert_eq!(clock.time_of_day(), Timestamp(103_500));
    }

    #[test]
    fn it_follows_a_step_forward() {
        let (clock, wall, _) = clock();
        wall.fetch_add(60_000, Ordering::SeqCst);
        assert_eq!(clock.now(), Timestamp(1_060_000));
    }

    #[test]
    fn it_continues_from_a_time_seen_before() {
        let (clock, wall, steady) = clock();
        clock.advance_to(Timestamp(5_000_000));
        assert_eq!(clock.now(), Timestamp(5_000_000));
        wall.fetch_add(10, Ordering::SeqCst);
        steady.fetch_add(10, Ordering::SeqCst);
        assert_eq!(clock.now(), Timestamp(5_000_010));
        clock.advance_to(Timestamp(1));
        assert_eq!(clock.now(), Timestamp(5_000_010));
    }
}
