//! Looks now and then at how full the cards are that models are on, for the metrics. A driver may take its time,
//! so no request waits for it.

use std::time::Duration;

use crate::queue::{JobQueue, Stop};
use crate::worker::Residency;

const BETWEEN_LOOKS: Duration = Duration::from_secs(10);

/// Blocks until it is asked to stop.
pub(super) fn watch(queue: &JobQueue, residency: &Residency, stop: &Stop) {
    while !stop.is_stopping() {
        for device in residency.devices() {
            if let Some(memory) = device.memory_use() {
                queue.metrics().device_memory(device.name(), memory.used, memory.total);
            }
        }
        stop.rest(BETWEEN_LOOKS);
    }
}
