//! Keeps other threads off the cards while a CUDA graph is captured.
//!
//! While one thread captures, CUDA refuses to give memory of a card to any other thread of the process, and the capture
//! fails as well. The same goes for giving memory back. Other threads are those of further workers, and those that merge
//! LoRAs. So whoever loads, runs or drops a session on a card takes a turn: a capture takes its turn alone, everything
//! else shares one.

use std::ops::{Deref, DerefMut};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::new(());

/// For everything but a capture. One thread must not take two turns at a time.
pub(super) fn shared() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a capture.
pub(super) fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// What holds memory of a card. It takes a turn when it is dropped, so nobody may drop it during a turn: whoever owns one
/// takes turns only while it uses it.
pub(super) struct OnTurn<T> {
    /// None only while it is dropped.
    held: Option<T>,
    is_on_card: bool,
}

impl<T> OnTurn<T> {
    /// Takes no turn if it is not on a card.
    pub fn new(held: T, is_on_card: bool) -> Self {
        Self { held: Some(held), is_on_card }
    }
}

impl<T> Deref for OnTurn<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_ref().expect("it is there until it is dropped")
    }
}

impl<T> DerefMut for OnTurn<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for OnTurn<T> {
    fn drop(&mut self) {
        let _turn = self.is_on_card.then(shared);
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Notes whether somebody has a turn while it is dropped.
    struct Watching<'a>(&'a Cell<Option<bool>>);

    impl Drop for Watching<'_> {
        fn drop(&mut self) {
            self.0.set(Some(TURN.try_write().is_err()));
        }
    }

    #[test]
    fn what_is_on_a_card_is_dropped_in_a_turn_and_ends_it() {
        let had_turn = Cell::new(None);
        drop(OnTurn::new(Watching(&had_turn), true));
        assert_eq!(had_turn.take(), Some(true));
        drop(OnTurn::new(Watching(&had_turn), false));
        assert_eq!(had_turn.take(), Some(false), "the turn before is over, and a CPU needs none");
    }
}
