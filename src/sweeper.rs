//! Deletes expired jobs on time. It decides when; what is deleted and how is the queue's business.

use std::time::Duration;

use crate::queue::{JobQueue, Stop, Swept};

/// Sweeps at once and then every `interval`, until it is asked to stop. Blocks: for a thread of its own.
pub fn run(queue: &JobQueue, interval: Duration, stop: &Stop) {
    while !stop.is_stopping() {
        sweep_once(queue);
        stop.rest(interval);
    }
}

/// Sweeps once. A failure is logged: the next sweep makes up for it.
pub fn sweep_once(queue: &JobQueue) -> Swept {
    match queue.sweep() {
        Ok(swept) => {
            if swept.jobs > 0 {
                tracing::info!(jobs = swept.jobs, clean = swept.clean, "forgot expired jobs");
            }
            swept
        }
        Err(error) => {
            tracing::warn!(%error, "expired jobs could not be deleted; trying again later");
            Swept::default()
        }
    }
}
