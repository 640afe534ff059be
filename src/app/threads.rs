//! The threads behind the server: started here, asked to stop here, and waited for.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::rt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Endpoint, device_memory};
use crate::engine::{Model, Residency};
use crate::fetch::Fetcher;
use crate::metrics::Metrics;
use crate::queue::{JobQueue, Stop};
use crate::sweeper;
use crate::webhooks::Webhooks;
use crate::worker::{self, Assignment, FirstLoad};

pub(super) struct Threads {
    queue: JobQueue,
    stop: Stop,
    handles: Vec<JoinHandle<()>>,
    failed: UnboundedSender<String>,
    failures: UnboundedReceiver<String>,
}

/// What all workers share.
pub(super) struct WorkerSettings {
    pub fetcher: Fetcher,
    pub metrics: Metrics,
    pub residency: Residency,
    pub unload_after: Option<Duration>,
    pub save_every: Option<Duration>,
}

impl Threads {
    pub fn new(queue: JobQueue) -> Self {
        let (failed, failures) = unbounded_channel();
        Self { queue, stop: Stop::default(), handles: Vec::new(), failed, failures }
    }

    /// Starts the workers of all endpoints. Each loads its engine on its own thread. The first worker of the only
    /// endpoint must be able to: a server without any engine is of no use.
    pub fn spawn_workers<M: Model + Clone + Send + 'static>(
        &mut self,
        endpoints: Vec<Endpoint<M>>,
        settings: &WorkerSettings,
    ) -> io::Result<()> {
        let is_only = endpoints.len() == 1;
        for endpoint in endpoints {
            for number in 0..endpoint.workers {
                let first_load = match endpoint.preload {
                    false => FirstLoad::OnDemand,
                    true if is_only && number == 0 => FirstLoad::Required,
                    true => FirstLoad::IfItFits,
                };
                self.spawn_worker(&endpoint, first_load, settings)?;
            }
        }
        Ok(())
    }

    fn spawn_worker<M: Model + Clone + Send + 'static>(
        &mut self,
        endpoint: &Endpoint<M>,
        first_load: FirstLoad,
        settings: &WorkerSettings,
    ) -> io::Result<()> {
        let failed = self.failed.clone();
        let ready = move |outcome: Result<(), String>| {
            if let Err(sentence) = outcome {
                let _ = failed.send(sentence);
            }
        };
        let assignment = Assignment {
            endpoint: endpoint.id.clone(),
            rules: endpoint.rules.clone(),
            fetcher: settings.fetcher.clone(),
            metrics: settings.metrics.clone(),
            first_load,
            memory: settings.residency.slot(&endpoint.id, first_load != FirstLoad::OnDemand),
            unload_after: settings.unload_after,
            save_every: settings.save_every,
        };
        let (queue, model, stop) = (self.queue.clone(), endpoint.model.clone(), self.stop.clone());
        self.handles.push(worker::spawn(queue, assignment, model, stop, ready)?);
        Ok(())
    }

    pub fn spawn_device_memory(&mut self, residency: Residency, metrics: Metrics) -> io::Result<()> {
        self.spawn("device memory", move |_, stop| device_memory::watch(&residency, &metrics, stop))
    }

    pub fn spawn_webhooks(&mut self, webhooks: &Webhooks, at_once: usize) -> io::Result<()> {
        self.handles.extend(webhooks.spawn(at_once, &self.stop)?);
        Ok(())
    }

    pub fn spawn_sweeper(&mut self, interval: Duration) -> io::Result<()> {
        self.spawn("sweeper", move |queue, stop| sweeper::run(queue, interval, stop))
    }

    /// Why an engine that the server needs could not be loaded. Waits for ever if all goes well.
    pub async fn failure(&mut self) -> String {
        // Never none: `failed` is still here.
        self.failures.recv().await.unwrap_or_default()
    }

    pub fn ask_to_stop(&self, grace: Duration) {
        self.stop.stop(grace);
    }

    /// Waits until all threads have ended, but for `patience` at most: a worker cannot be interrupted in the middle of
    /// a long step. The next start finds its jobs, as after a crash.
    pub async fn join(self, patience: Duration) {
        if rt::time::timeout(patience, self.join_all()).await.is_err() {
            tracing::warn!("a worker or a webhook did not stop in time; the next start continues its jobs");
        }
    }

    async fn join_all(self) {
        while self.handles.iter().any(|thread| !thread.is_finished()) {
            // Again and again: a worker may have looked for a stop just before it came, and may begin to wait for work
            // just after it was woken.
            self.queue.wake_workers();
            self.queue.wake_outbox();
            rt::time::sleep(Duration::from_millis(20)).await;
        }
        for thread in self.handles {
            if thread.join().is_err() {
                tracing::error!("a background thread had panicked");
            }
        }
    }

    pub fn spawn(
        &mut self,
        name: &str,
        work: impl FnOnce(&JobQueue, &Stop) + Send + 'static,
    ) -> io::Result<()> {
        let (queue, stop) = (self.queue.clone(), self.stop.clone());
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue, &stop))?;
        self.handles.push(thread);
        Ok(())
    }
}
