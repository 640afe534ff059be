//! Keeps other threads off the cards while a CUDA graph is captured.
//!
//! While one thread captures, CUDA refuses to give memory of a card to any other thread of the process, and the capture
//! fails as well. Other threads are those of further workers, and those that merge LoRAs. So whoever loads or runs a
//! session on a card takes a turn: a capture takes its turn alone, everything else shares one.

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
