//! An account of the memory that scripted engines really hold, for tests to compare with what was reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The memory that scripted engines really hold.
#[derive(Default)]
pub(super) struct Ledger {
    pub held: AtomicU64,
    pub peak: AtomicU64,
}

/// Some of it, until it is dropped.
pub(super) struct Bytes(Arc<Ledger>, pub u64);

impl Bytes {
    pub fn new(ledger: &Arc<Ledger>, bytes: u64) -> Self {
        let held = ledger.held.fetch_add(bytes, Ordering::SeqCst) + bytes;
        ledger.peak.fetch_max(held, Ordering::SeqCst);
        Self(Arc::clone(ledger), bytes)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.held.fetch_sub(self.1, Ordering::SeqCst);
    }
}
