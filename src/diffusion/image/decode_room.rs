//! The memory that all pictures together may take while they are decoded.
//!
//! One picture may take half a gigabyte, and each request and each job may bring several. Those that do not fit beside the
//! others wait for their turn.

use std::sync::{Condvar, Mutex, PoisonError};

/// A number of bytes that threads share. One that needs more than there is left waits.
pub(super) struct Room {
    all: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that are in use until this is dropped.
#[must_use]
pub(super) struct Taken<'a> {
    room: &'a Room,
    bytes: u64,
}

impl Room {
    pub const fn new(all: u64) -> Self {
        Self { all, free: Mutex::new(all), freed: Condvar::new() }
    }

    /// Takes `bytes`, or all of them if that is more. Blocks until they are free. A thread that has taken some must not take
    /// more.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let bytes = bytes.min(self.all);
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Taken { room: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.room.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.room.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    #[test]
    fn what_does_not_fit_waits_for_its_turn() {
        let room = Room::new(10);
        let (sender, receiver) = channel();
        thread::scope(|scope| {
            let first = room.take(7);
            scope.spawn(|| {
                let taken = room.take(99);
                sender.send("all").unwrap();
                drop(taken);
            });
            drop(room.take(3));
            sender.send("what fits").unwrap();
            drop(first);
        });
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), ["what fits", "all"]);
        assert_eq!(*room.free.lock().unwrap(), 10);
    }
}
