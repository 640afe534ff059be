//! Signs of life of the server's threads, for whoever gets no connection because clients hold them all.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use actix_web::rt;

use super::request::Visitors;

/// How often a thread says that it still runs its tasks.
const BEAT: Duration = Duration::from_secs(1);
/// A thread that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the server's threads and its connections. Clones share it.
#[derive(Clone)]
pub struct Pulse {
    visitors: Visitors,
    /// The latest beat of each thread. A thread that has ended is gone.
    threads: Arc<Mutex<Vec<Weak<Mutex<Instant>>>>>,
}

impl Pulse {
    pub(super) fn new(visitors: Visitors) -> Self {
        Self { visitors, threads: Arc::default() }
    }

    /// Beats from now on, on this thread.
    pub(super) fn begin(&self) {
        let latest = self.enter();
        rt::spawn(async move {
            loop {
                *latest.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                rt::time::sleep(BEAT).await;
            }
        });
    }

    /// Whether the server works although it takes no connection from `address`: its threads run, and clients hold as many
    /// connections as there may be.
    pub fn is_full_but_alive(&self, address: IpAddr) -> bool {
        !self.visitors.has_place_for(address) && self.beats(Instant::now())
    }

    fn enter(&self) -> Arc<Mutex<Instant>> {
        let latest = Arc::new(Mutex::new(Instant::now()));
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(&latest));
        latest
    }

    fn beats(&self, now: Instant) -> bool {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let mut latest = threads.iter().filter_map(Weak::upgrade).peekable();
        let is_late = |latest: &Mutex<Instant>| {
            let latest = *latest.lock().unwrap_or_else(PoisonError::into_inner);
            now.saturating_duration_since(latest) > PATIENCE
        };
        latest.peek().is_some() && !latest.any(|latest| is_late(&latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_server_is_alive_as_long_as_all_its_threads_are() {
        let visitors = Visitors::new(10, 1, "none".parse().unwrap());
        let pulse = Pulse::new(visitors.clone());
        let address = IpAddr::from([127, 0, 0, 1]);
        let (first, second) = (pulse.enter(), pulse.enter());
        assert!(!pulse.is_full_but_alive(address), "there is a place: whoever gets no answer should wonder");
        let _place = visitors.enter(address).unwrap();
        assert!(pulse.is_full_but_alive(address));
        let later = Instant::now() + PATIENCE + BEAT;
        *second.lock().unwrap() = later;
        assert!(!pulse.beats(later), "the first is stuck");
        drop(first);
        assert!(pulse.beats(later));
        drop(second);
        assert!(!pulse.beats(later), "nobody is there");
    }
}
