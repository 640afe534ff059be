//! How the receivers of webhooks have answered, so that those that hang take no place from the others.
//!
//! A receiver that has not answered yet gets one message at a time. One that failed rests, longer with each failure, and then
//! gets one again.

use std::collections::HashMap;
use std::time::Duration;

use super::outbox::{BETWEEN_TRIES, TRIES};
use crate::domain::Timestamp;

/// The most receivers that are remembered. A forgotten one counts as new.
const MOST: usize = 10_000;
/// The longest rest: sixteen times the time between tries.
const MOST_DOUBLINGS: u32 = 4;

#[derive(Default)]
pub(super) struct Receivers(HashMap<i64, Standing>);

enum Standing {
    Answered,
    Failed { times: u32, rests_until: Timestamp },
}

impl Receivers {
    /// How many messages may be under way to this receiver, where one that answers gets `most`.
    pub fn places(&self, receiver: i64, most: usize, now: Timestamp) -> usize {
        match self.0.get(&receiver) {
            Some(Standing::Answered) => most,
            Some(Standing::Failed { rests_until, .. }) if *rests_until > now => 0,
            Some(Standing::Failed { .. }) | None => most.min(1),
        }
    }

    pub fn answered(&mut self, receiver: i64) {
        self.note(receiver, Standing::Answered);
    }

    /// The first failures rest as long as their message waits for its next try.
    pub fn failed(&mut self, receiver: i64, now: Timestamp) {
        let before = match self.0.get(&receiver) {
            Some(Standing::Failed { times, .. }) => *times,
            Some(Standing::Answered) | None => 0,
        };
        let doublings = before.saturating_sub(TRIES - 1).min(MOST_DOUBLINGS);
        let rests_until = now + BETWEEN_TRIES * 2_u32.pow(doublings);
        self.note(receiver, Standing::Failed { times: before.saturating_add(1), rests_until });
    }

    /// How long until a receiver has rested.
    pub fn next_rested(&self, now: Timestamp) -> Option<Duration> {
        let until = self.0.values().filter_map(|standing| match standing {
            Standing::Failed { rests_until, .. } if *rests_until > now => Some(rests_until.since(now)),
            _ => None,
        });
        until.min()
    }

    fn note(&mut self, receiver: i64, standing: Standing) {
        if self.0.len() >= MOST && !self.0.contains_key(&receiver) {
            self.0.clear();
        }
        self.0.insert(receiver, standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANGS: i64 = 1;

    #[test]
    fn a_receiver_that_fails_rests_longer_each_time_until_it_answers() {
        let mut receivers = Receivers::default();
        let mut now = Timestamp(0);
        assert_eq!(receivers.places(HANGS, 4, now), 1);
        let mut rests = Vec::new();
        for _ in 0..9 {
            receivers.failed(HANGS, now);
            assert_eq!(receivers.places(HANGS, 4, now), 0);
            let rest = receivers.next_rested(now).unwrap();
            rests.push(rest.as_secs());
            now = now + rest;
            assert_eq!((receivers.places(HANGS, 4, now), receivers.next_rested(now)), (1, None));
        }
        assert_eq!(rests, [10, 10, 10, 20, 40, 80, 160, 160, 160]);
        receivers.answered(HANGS);
        assert_eq!(receivers.places(HANGS, 4, now), 4);
    }

    #[test]
    fn only_so_many_receivers_are_remembered() {
        let mut receivers = Receivers::default();
        for receiver in 0..25_000 {
            receivers.answered(receiver);
        }
        assert!(receivers.0.len() <= MOST);
    }
}
