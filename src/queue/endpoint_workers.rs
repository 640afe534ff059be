//! What the workers of each endpoint share: how they are woken for work, and how many they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::readiness::Pace;
use super::work_signal::WorkSignal;
use super::workers::{States, WorkerCounts};
use crate::domain::EndpointId;
use crate::metrics::WorkerLoad;

/// The workers of one endpoint. Each endpoint has its own signal: that its queue was found empty says nothing about
/// another's queue, and its workers must not be woken for jobs that they cannot take.
#[derive(Default)]
pub(super) struct EndpointWorkers {
    pub(super) signal: WorkSignal,
    pub(super) states: States,
    pub(super) pace: Pace,
    /// How often its engines were asked to unload.
    unloads: AtomicU64,
}

impl EndpointWorkers {
    pub(super) fn ask_to_unload(&self) {
        self.unloads.fetch_add(1, Ordering::SeqCst);
        self.signal.raise();
    }

    pub(super) fn unloads(&self) -> u64 {
        self.unloads.load(Ordering::SeqCst)
    }
}

/// The workers of all endpoints. An entry is made when it is first asked for; only this server's endpoints ever are.
#[derive(Default)]
pub(super) struct WorkersByEndpoint(Mutex<HashMap<EndpointId, Arc<EndpointWorkers>>>);

impl WorkersByEndpoint {
    pub(super) fn get(&self, endpoint: &EndpointId) -> Arc<EndpointWorkers> {
        let mut all = self.all();
        if let Some(workers) = all.get(endpoint) {
            return Arc::clone(workers);
        }
        Arc::clone(all.entry(endpoint.clone()).or_default())
    }

    /// The workers of each endpoint, as the metrics show them.
    pub(super) fn load(&self) -> Vec<WorkerLoad> {
        let load = |(endpoint, workers): (&EndpointId, &Arc<EndpointWorkers>)| {
            let WorkerCounts { initializing, throttled, idle, running, .. } = workers.states.counts();
            WorkerLoad { endpoint: endpoint.to_string(), initializing, throttled, idle, running }
        };
        self.all().iter().map(load).collect()
    }

    /// Whether no worker has been at one turn with its jobs for too long.
    pub(super) fn make_progress(&self) -> bool {
        let now = Instant::now();
        self.all().values().all(|workers| workers.states.make_progress(now))
    }

    /// Wakes every worker, with work or without.
    pub(super) fn wake_all(&self) {
        let all: Vec<_> = self.all().values().map(Arc::clone).collect();
        for workers in all {
            workers.signal.raise();
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<EndpointId, Arc<EndpointWorkers>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
