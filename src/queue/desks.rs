//! What the workers of each endpoint share: how they hear of work, and how many they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::work_signal::WorkSignal;
use super::workers::{Tally, WorkerCounts};
use crate::domain::EndpointId;
use crate::metrics::WorkerLoad;

/// One endpoint's. That its queue was found empty says nothing about another's, nor is there use in waking
/// workers for a job that they may not take.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) signal: WorkSignal,
    pub(super) workers: Tally,
}

/// All of them, each made when it is first asked for. Only the endpoints of this server ever are.
#[derive(Default)]
pub(super) struct Desks(Mutex<HashMap<EndpointId, Arc<Desk>>>);

impl Desks {
    pub(super) fn of(&self, endpoint: &EndpointId) -> Arc<Desk> {
        let mut desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desks.get(endpoint) {
            return Arc::clone(desk);
        }
        Arc::clone(desks.entry(endpoint.clone()).or_default())
    }

    /// The workers of each endpoint, as the metrics show them.
    pub(super) fn worker_load(&self) -> Vec<WorkerLoad> {
        let desks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let load = desks.iter().map(|(endpoint, desk)| {
            let WorkerCounts { initializing, throttled, idle, running, .. } = desk.workers.counts();
            WorkerLoad { endpoint: endpoint.to_string(), initializing, throttled, idle, running }
        });
        load.collect()
    }

    /// Makes every worker look around.
    pub(super) fn raise_all(&self) {
        let desks: Vec<_> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        for desk in desks {
            desk.signal.raise();
        }
    }
}
