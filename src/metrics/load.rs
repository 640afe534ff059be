//! The current state of the data folder and of the workers.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::{EndpointLabels, signed};

/// What the data folder holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs by endpoint and state. RETRIED is not a state: it counts how often jobs were put back into the queue.
    pub jobs: Vec<(String, String, u64)>,
    /// How long the oldest queued job of each endpoint has waited.
    pub oldest_queued: Vec<(String, Duration)>,
    pub database_bytes: u64,
    /// The part of `database_bytes` that is in free pages.
    pub free_bytes: u64,
    /// The size of the write-ahead log.
    pub log_bytes: u64,
}

/// An endpoint's workers by what they are doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerLoad {
    pub endpoint: String,
    pub initializing: u32,
    pub throttled: u32,
    pub idle: u32,
    pub running: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    endpoint: String,
    status: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkerLabels {
    endpoint: String,
    state: &'static str,
}

pub(super) fn register(registry: &mut Registry, load: &Load, workers: &[WorkerLoad]) {
    let jobs = Family::<StateLabels, Gauge>::default();
    let retries = Family::<EndpointLabels, Counter>::default();
    for (endpoint, counted, count) in &load.jobs {
        let endpoint = endpoint.clone();
        if counted == "RETRIED" {
            retries.get_or_create(&EndpointLabels { endpoint }).inc_by(*count);
        } else {
            let labels = StateLabels { endpoint, status: counted.clone() };
            jobs.get_or_create(&labels).set(signed(*count));
        }
    }
    registry.register("jobs", "Jobs kept, by state", jobs);
    registry.register("job_retries", "Times that a job was put back into the queue", retries);
    let oldest = Family::<EndpointLabels, Gauge<f64, AtomicU64>>::default();
    for (endpoint, age) in &load.oldest_queued {
        oldest.get_or_create(&EndpointLabels { endpoint: endpoint.clone() }).set(age.as_secs_f64());
    }
    registry.register("queue_oldest_seconds", "Age of the job that waits longest", oldest);

    let states = Family::<WorkerLabels, Gauge>::default();
    for WorkerLoad { endpoint, initializing, throttled, idle, running } in workers {
        for (state, count) in
            [("initializing", initializing), ("throttled", throttled), ("idle", idle), ("running", running)]
        {
            let labels = WorkerLabels { endpoint: endpoint.clone(), state };
            states.get_or_create(&labels).set(i64::from(*count));
        }
    }
    registry.register("workers", "Workers by what they are at", states);

    for (name, help, bytes) in [
        ("database_bytes", "Size of the job database", load.database_bytes),
        ("database_free_bytes", "Of it, free for later jobs", load.free_bytes),
        ("database_log_bytes", "Size of its write-ahead log", load.log_bytes),
    ] {
        registry.register(name, help, ConstGauge::new(signed(bytes)));
    }
    let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The running program", build);
}
