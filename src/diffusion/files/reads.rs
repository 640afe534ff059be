//! For tests: how often each file was read on this thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static READS: RefCell<BTreeMap<String, usize>> = const { RefCell::new(BTreeMap::new()) };
}

pub fn note(file: &str) {
    READS.with_borrow_mut(|reads| *reads.entry(file.to_owned()).or_default() += 1);
}

/// What was read since the last call.
pub fn take() -> BTreeMap<String, usize> {
    READS.take()
}
