//! Reads for the metrics, now and then, how much memory is in use on the cards that engines run on. A driver may be
//! slow to answer, so no request waits for it.

use std::time::Duration;

use crate::engine::Residency;
use crate::metrics::Metrics;
use crate::queue::Stop;

const INTERVAL: Duration = Duration::from_secs(10);

/// Blocks until it is asked to stop.
pub(super) fn watch(residency: &Residency, metrics: &Metrics, stop: &Stop) {
    while !stop.is_stopping() {
        for device in residency.devices() {
            if let Some(memory) = device.memory_use() {
                metrics.device_memory(device.name(), memory.used, memory.total);
            }
        }
        stop.rest(INTERVAL);
    }
}
