//! Deletes expired jobs, in many small steps.

use std::thread;
use std::time::Instant;

use super::{Inner, JobQueue, QueueError};

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs deleted.
    pub jobs: u64,
    /// Whether no byte of a deleted job is left in the files. If not, a reader was in the way, and the next sweep tries
    /// again.
    pub clean: bool,
}

impl JobQueue {
    /// Deletes expired jobs, gives their space back and clears their traces from the log. Blocks.
    pub fn sweep(&self) -> Result<Swept, QueueError> {
        let Inner { store, board, metrics, .. } = &*self.inner;
        let mut swept = Swept::default();
        store.note_time(self.now()).wait()?;
        let forgotten = self.forget_expired(&mut swept.jobs);
        board.forget_expired(self.now());
        if swept.jobs > 0 {
            board.notify_all();
        }
        // Also if the disk was too full to delete anything: emptying the log makes room.
        if store.leaves_traces() {
            swept.clean = store.clear_traces()?;
        } else {
            swept.clean = true;
        }
        metrics.sweep(swept.jobs);
        forgotten?;
        Ok(swept)
    }

    fn forget_expired(&self, jobs: &mut u64) -> Result<(), QueueError> {
        let store = &self.inner.store;
        in_steps(|| {
            let step = store.forget_expired(self.now()).wait()?;
            *jobs += step.count;
            Ok(step.more)
        })?;
        in_steps(|| Ok(store.give_back().wait()?.more))
    }
}

/// Repeats `step` until it says that there is no more to do. After each step others may use the writer for as long as
/// the step took.
fn in_steps(mut step: impl FnMut() -> Result<bool, QueueError>) -> Result<(), QueueError> {
    loop {
        let started = Instant::now();
        if !step()? {
            return Ok(());
        }
        thread::sleep(started.elapsed());
    }
}
