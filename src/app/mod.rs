//! The whole server put together: built, serving, and stopped in the right order.
//!
//! [`App`] is generic over the model that engines are loaded from: the command line brings [`PipelineModel`], tests
//! bring a script. Engines are loaded on their workers' threads while the server answers already.

mod data_dir;
mod device_memory;
mod diffusion_engine;
mod draining;
mod error;
mod open_files;
mod port;
#[cfg(target_os = "linux")]
mod supervisor;
mod threads;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actix_web::{rt, web};
use futures_util::future::{Either, select};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use diffusion_engine::PipelineModel;
pub use draining::{Drain, DrainFile, LOOK as DRAIN_LOOK};
pub use error::AppError;

use crate::agent;
use crate::config::Config;
use crate::domain::{Clock, EndpointId, InputRules};
use crate::engine::{Model, Residency};
use crate::fetch::Fetcher;
use crate::http::{
    self, Api, BodyMemory, Endpoints, Limiter, MemoryProbe, MemoryUse, ServedEndpoint, ServerLimits,
};
use crate::library::{Library, LibrarySettings, Served};
use crate::metrics::Metrics;
use crate::queue::JobQueue;
use crate::runtime;
use crate::secrets::OwnApiKey;
use crate::webhooks::{self, Post, Webhooks};
use crate::wire::UrlSigner;
pub use port::reachable;
use threads::{Threads, WorkerSettings};

/// An endpoint as the server needs it.
pub struct Endpoint<M> {
    pub id: EndpointId,
    pub workers: u32,
    /// What its model can be asked for. Known without loading the model.
    pub rules: InputRules,
    /// The name of its model.
    pub model_name: String,
    /// Where its model lies. The built-in one lies nowhere.
    pub model_path: Option<PathBuf>,
    /// Whether its model is loaded at the start, if there is enough memory.
    pub preload: bool,
    /// The model. Each worker loads an engine of its own from it.
    pub model: M,
}

/// A server that has its port and its data folder, but does not serve yet.
pub struct App<M> {
    config: Config,
    queue: JobQueue,
    api: web::Data<Api>,
    webhooks: Webhooks,
    metrics: Metrics,
    fetcher: Fetcher,
    listener: TcpListener,
    address: SocketAddr,
    /// Where HAProxy's agent check asks.
    agent: Option<TcpListener>,
    stopping: watch::Sender<bool>,
    own_api_key: Option<OwnApiKey>,
    endpoints: Vec<Endpoint<M>>,
    /// The most connections at the same time.
    connections: usize,
}

/// How long an answer under way may take once the server stops.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// How long a step may take after the workers' grace is over.
const STEP_GRACE: Duration = Duration::from_secs(5);

impl<M: Model + Clone + Send + 'static> App<M> {
    /// Takes the port and the data folder. Blocks while the database opens.
    pub fn build(config: &Config, endpoints: Vec<Endpoint<M>>, clock: Clock) -> Result<Self, AppError> {
        let connections = open_files::connections()?;
        // The port first: a second server on one machine should fail before it touches the jobs.
        let (listener, address) = port::bind(config.listen, "--listen")?;
        let agent = config.agent_listen.map(|address| port::bind(address, "--agent-listen")).transpose()?;
        data_dir::prepare(&config.data_dir)?;
        let signer = UrlSigner::new(data_dir::signing_key(config)?);
        let (keys, own_api_key) = data_dir::api_keys(config)?;
        let secret = data_dir::webhook_secret(config)?;
        let fetcher = Fetcher::new(config.allow_addresses.clone())?;
        let metrics = Metrics::default();
        // Messages to webhooks answer no request, so there is no Host header to take the address from.
        let base = config.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let describe = webhooks::describe(signer.clone(), base);
        let queue = JobQueue::open(&config.data_dir, config.queue.clone(), clock, describe, metrics.clone())
            .map_err(|source| AppError::Queue { path: config.data_dir.display().to_string(), source })?;
        // Only now is it certain that no other server has this folder.
        data_dir::forget_drain(&config.data_dir)?;
        let post = post_with(fetcher.clone());
        let at_once = config.webhooks_at_once as usize;
        let webhooks = Webhooks::new(queue.clone(), secret, post, at_once, metrics.clone());
        let (stopping, stop_seen) = watch::channel(false);
        let served = |endpoint: &Endpoint<M>| ServedEndpoint {
            id: endpoint.id.clone(),
            rules: endpoint.rules.clone(),
            model: endpoint.model_name.clone(),
        };
        let api = web::Data::new(Api {
            queue: queue.clone(),
            endpoints: Endpoints::new(endpoints.iter().map(served).collect()),
            keys,
            limiter: Limiter::new(&config.http.rate_limits),
            metrics: metrics.clone(),
            settings: config.http.clone(),
            body_memory: BodyMemory::new(config.http.body_memory),
            started_at: queue.now(),
            signer,
            public_url: config.public_url.clone(),
            listen: reachable(address),
            library: library(config, &endpoints),
            memory: MemoryProbe { machine: machine_memory_use, card: first_card },
            stopping: stop_seen,
        });
        Ok(Self {
            config: config.clone(),
            queue,
            api,
            webhooks,
            metrics,
            fetcher,
            listener,
            address,
            agent: agent.map(|(listener, _)| listener),
            stopping,
            own_api_key,
            endpoints,
            connections,
        })
    }

    /// Serves until `stop` comes, the only endpoint's model cannot be loaded, or the server breaks.
    ///
    /// 1. Serve requests.
    /// 2. Start the background threads: the workers, which load their models; the watch on device memory; the
    ///    webhooks; the sweeper; what tells systemd how the server is.
    /// 3. Wait for a reason to end.
    /// 4. Answer those who wait for a job, and take no new connection.
    /// 5. Let the background threads end: within the grace, workers finish their jobs or put them back, and webhook
    ///    calls under way come to their end.
    /// 6. Close the queue. It comes last, since all others write to it.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let Self { config, queue, metrics, .. } = self;
        let library = self.api.library.clone();
        let (server, pulse) =
            http::serve(self.listener, self.api, &config.http.cors_origins, server_limits(self.connections))?;
        let handle = server.handle();

        let woken = queue.clone();
        let residency = Residency::new(move || woken.wake_workers());
        let mut threads = Threads::new(queue.clone());
        let settings = WorkerSettings {
            fetcher: self.fetcher,
            metrics: metrics.clone(),
            residency: residency.clone(),
            unload_after: config.unload_after,
            save_every: config.save_every,
        };
        #[cfg(target_os = "linux")]
        let with_workers: Vec<_> = {
            let endpoints = self.endpoints.iter().filter(|endpoint| endpoint.workers > 0);
            endpoints.map(|endpoint| endpoint.id.clone()).collect()
        };
        let endpoints: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.id.clone()).collect();
        let server = rt::spawn(server);
        threads.spawn_workers(self.endpoints, &settings)?;
        threads.spawn_device_memory(residency, metrics)?;
        threads.spawn_webhooks(&self.webhooks, config.webhooks_at_once as usize)?;
        threads.spawn_sweeper(config.sweep_interval)?;
        #[cfg(target_os = "linux")]
        if let Some(supervised) =
            supervisor::Supervised::by_systemd(reachable(self.address), pulse, with_workers)
        {
            threads.spawn("supervisor", move |queue, stop| supervised.report(queue, stop))?;
        }

        // They end with this function: while the server stops, no balancer needs to hear of it.
        let mut asked = JoinSet::new();
        let drain_file = DrainFile::new(&config.data_dir);
        asked.spawn_local(draining::watch(drain_file, queue.clone(), endpoints.clone()));
        if let Some(listener) = self.agent {
            let queue = queue.clone();
            asked.spawn_local(async move {
                if let Err(error) = agent::serve(listener, queue, endpoints).await {
                    tracing::error!(%error, "HAProxy's agent check gets no answers");
                }
            });
        }

        let outcome = wait_for_end(stop, &mut threads, server).await;

        drop(asked);
        #[cfg(target_os = "linux")]
        supervisor::stopping();
        // Before its threads end, or it would log that there is none left for the next connection.
        handle.pause().await;
        self.stopping.send_replace(true);
        let _ = web::block(move || library.stop()).await;
        let answered = handle.stop(true);
        threads.ask_to_stop(config.shutdown_grace);
        threads.join(config.shutdown_grace + STEP_GRACE).await;
        answered.await;
        let _ = web::block(move || queue.close()).await;
        outcome
    }
}

impl<M> App<M> {
    /// The port that the server listens on: the configured one, or a free one if that is 0.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where a client on this machine reaches the server.
    pub fn local_url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    /// The key in the data folder, if no keys are configured.
    pub fn own_api_key(&self) -> Option<&OwnApiKey> {
        self.own_api_key.as_ref()
    }
}

async fn wait_for_end(
    stop: impl Future<Output = ()>,
    threads: &mut Threads,
    server: rt::task::JoinHandle<io::Result<()>>,
) -> Result<(), AppError> {
    let (stop, failure) = (pin!(stop), pin!(threads.failure()));
    match select(select(stop, failure), server).await {
        Either::Left((Either::Left(_), _)) => {
            tracing::info!("stopping");
            Ok(())
        }
        Either::Left((Either::Right((sentence, _)), _)) => Err(AppError::Worker(sentence)),
        Either::Right((ended, _)) => Err(AppError::Server(ended_early(ended))),
    }
}

/// What clients see of the models on the disk, and may change there.
fn library<M>(config: &Config, endpoints: &[Endpoint<M>]) -> Library {
    let settings = LibrarySettings {
        models: config.models_dir.clone(),
        controlnets: config.add_ons.controlnets.clone(),
        loras: config.add_ons.loras.clone(),
        upscalers: config.add_ons.upscalers.clone(),
        may_change: config.manage_models,
        node: config.http.node,
        allowed: config.allow_addresses.clone(),
    };
    let served = |one: &Endpoint<M>| Served { endpoint: one.id.clone(), path: one.model_path.clone() };
    Library::new(settings, endpoints.iter().map(served).collect())
}

fn machine_memory_use() -> Option<MemoryUse> {
    let runtime::MemoryUse { used, total } = runtime::machine_memory_use()?;
    Some(MemoryUse { used, total })
}

fn first_card() -> Option<MemoryUse> {
    let runtime::MemoryUse { used, total } = runtime::card_memory(0)?;
    Some(MemoryUse { used, total })
}

fn ended_early<E: std::error::Error + Send + Sync + 'static>(ended: Result<io::Result<()>, E>) -> io::Error {
    match ended {
        Ok(Ok(())) => io::Error::other("it stopped by itself"),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    }
}

/// How webhooks are posted: to public addresses, and to those that the operator allows.
fn post_with(fetcher: Fetcher) -> Post {
    Arc::new(move |url, headers, body| {
        fetcher
            .post_json(url, headers, body.as_bytes(), webhooks::DEADLINE)
            .map_err(|error| error.to_string())
    })
}

/// A few server threads are enough: they mostly wait for the queue, and the cores are for the engines.
fn server_limits(connections: usize) -> ServerLimits {
    ServerLimits {
        threads: thread::available_parallelism().map_or(2, usize::from).clamp(1, 4),
        connections,
        // A browser alone has some.
        connections_of_one: (connections / 10).max(32),
        shutdown_timeout: ANSWER_GRACE,
    }
}
