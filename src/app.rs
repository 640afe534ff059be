//! The whole server put together: built, serving, and stopped in the one right order.
//!
//! Generic over the model that engines are made of, so that the command line brings the real one and tests
//! bring a script. Engines are loaded on their workers' threads, while the server answers already.

mod device_memory;
mod diffusion_engine;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::{rt, web};
use futures_util::future::{Either, select};
use tokio::sync::{mpsc, watch};

pub use diffusion_engine::PipelineModel;

use crate::config::{Access, Config};
use crate::domain::{Clock, EndpointId, InputRules};
use crate::fetch::{FetchError, Fetcher};
use crate::http::{self, Api, ApiKeys, Limiter, ServerLimits};
use crate::queue::{JobQueue, QueueError, Stop};
use crate::secrets::{self, OwnApiKey, SecretError};
use crate::sweeper;
use crate::webhooks::{self, Post, Webhooks};
use crate::wire::UrlSigner;
use crate::worker::{self, Assignment, FirstLoad, Model, Residency};

/// An endpoint as the server needs it: what its model can be asked for, known without loading it, and the model
/// that engines are made of, one a worker.
pub struct Endpoint<M> {
    pub id: EndpointId,
    pub workers: u32,
    pub rules: InputRules,
    /// Whether its model is loaded at the start, if there is room.
    pub preload: bool,
    pub model: M,
}

/// Why there is no server, or no longer; a sentence for the operator each.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot use the data folder {path}: {reason}")]
    DataDir { path: String, reason: String },
    #[error("cannot open the job database in {path}: {source}")]
    Queue { path: String, source: QueueError },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot call outside: {0}")]
    Fetch(#[from] FetchError),
    #[error("{0} is in use by another program: stop it, or choose another port with --listen")]
    PortInUse(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Worker(String),
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}

/// A server that is bound and ready, but does not serve yet.
pub struct App<M> {
    config: Config,
    queue: JobQueue,
    api: web::Data<Api>,
    webhooks: Webhooks,
    listener: TcpListener,
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    own_api_key: Option<OwnApiKey>,
    endpoints: Vec<Endpoint<M>>,
    fetcher: Fetcher,
}

impl<M: Model + Clone + Send + 'static> App<M> {
    /// Takes the data folder and the port. Blocks, but for no longer than the database's opening.
    pub fn build(config: &Config, endpoints: Vec<Endpoint<M>>, clock: Clock) -> Result<Self, AppError> {
        // The port first: a second server on one machine should fail before it touches the jobs.
        let (listener, address) = listen(config.listen)?;
        prepare_data_dir(&config.data_dir)?;
        let signer = UrlSigner::new(secrets::signing_key(&config.data_dir)?);
        let (keys, own_api_key) = api_keys(config)?;
        let secret = match &config.webhook_secret {
            Some(secret) => secret.clone(),
            None => secrets::webhook_secret(&config.data_dir)?,
        };
        let fetcher = Fetcher::new(config.allow_addresses.clone())?;
        // A webhook has no request whose Host could be used.
        let base = config.public_url.clone().unwrap_or_else(|| format!("http://{}", reachable(address)));
        let describe = webhooks::describe(signer.clone(), base);
        let queue = JobQueue::open(&config.data_dir, config.queue.clone(), clock, describe)
            .map_err(|source| AppError::Queue { path: config.data_dir.display().to_string(), source })?;
        let at_once = config.webhooks_at_once as usize;
        let webhooks = Webhooks::new(queue.clone(), secret, post_with(fetcher.clone()), at_once);
        let (stopping, stop_seen) = watch::channel(false);
        let api = web::Data::new(Api {
            queue: queue.clone(),
            endpoints: rules_of(&endpoints),
            keys,
            limiter: Limiter::new(&config.http.rate_limits),
            metrics: config.http.metrics,
            signer,
            public_url: config.public_url.clone(),
            listen: reachable(address),
            stopping: stop_seen,
        });
        Ok(Self {
            config: config.clone(),
            queue,
            api,
            webhooks,
            listener,
            address,
            stopping,
            own_api_key,
            endpoints,
            fetcher,
        })
    }

    /// Serves until `stop` comes, the model of the only endpoint cannot be loaded, or the server breaks.
    ///
    /// The order of an end: those who wait are answered and no new connection is taken; the workers
    /// finish or hand back what they hold, within the grace; the sweeper rests, and a webhook under way is
    /// heard out; the queue is closed
    /// last, since all others write to it.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let limits = ServerLimits {
            threads: server_threads(),
            connections: MAX_CONNECTIONS,
            shutdown_timeout: ANSWER_GRACE,
        };
        let server = http::serve(self.listener, self.api, &self.config.http.cors_origins, limits)?;
        let handle = server.handle();
        let mut server = rt::spawn(server);

        let signal = Stop::default();
        let (failed, mut failures) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        let queue = self.queue.clone();
        let residency = Residency::new(move || queue.wake_workers());
        let is_only = self.endpoints.len() == 1;
        for endpoint in self.endpoints {
            let first_load = match (endpoint.preload, is_only) {
                (false, _) => FirstLoad::OnDemand,
                (true, false) => FirstLoad::IfItFits,
                (true, true) => FirstLoad::Required,
            };
            for number in 0..endpoint.workers {
                // One engine is enough to serve with.
                let first_load = match first_load {
                    FirstLoad::Required if number > 0 => FirstLoad::IfItFits,
                    first_load => first_load,
                };
                let failed = failed.clone();
                let tell = move |ready: Result<(), String>| {
                    if let Err(sentence) = ready {
                        let _ = failed.send(sentence);
                    }
                };
                let assignment = Assignment {
                    endpoint: endpoint.id.clone(),
                    rules: endpoint.rules.clone(),
                    fetcher: self.fetcher.clone(),
                    first_load,
                    seat: residency.seat(&endpoint.id, first_load != FirstLoad::OnDemand),
                    unload_after: self.config.unload_after,
                };
                let (queue, model) = (self.queue.clone(), endpoint.model.clone());
                threads.push(worker::spawn(queue, assignment, model, signal.clone(), tell)?);
            }
        }
        let (queue, watching) = (self.queue.clone(), signal.clone());
        let watch = move || device_memory::watch(&queue, &residency, &watching);
        threads.push(thread::Builder::new().name("device memory".to_owned()).spawn(watch)?);
        threads.extend(self.webhooks.spawn(self.config.webhooks_at_once as usize, &signal)?);
        let (queue, interval, sweeping) = (self.queue.clone(), self.config.sweep_interval, signal.clone());
        let sweep = move || sweeper::run(&queue, interval, &sweeping);
        threads.push(thread::Builder::new().name("sweeper".to_owned()).spawn(sweep)?);

        let stop = pin!(stop);
        let failure = pin!(failures.recv()); // never none: `failed` is still held
        let outcome = match select(select(stop, failure), &mut server).await {
            Either::Left((Either::Left(_), _)) => Ok(()),
            Either::Left((Either::Right((sentence, _)), _)) => {
                Err(AppError::Worker(sentence.unwrap_or_default()))
            }
            Either::Right((ended, _)) => Err(AppError::Server(ended_early(ended))),
        };
        if outcome.is_ok() {
            tracing::info!("stopping");
        }

        self.stopping.send_replace(true);
        signal.stop(self.config.shutdown_grace);
        let answered = handle.stop(true);
        let patience = self.config.shutdown_grace + STEP_GRACE;
        if rt::time::timeout(patience, join(threads, &self.queue)).await.is_err() {
            tracing::warn!(
                "a worker or a webhook does not stop; the next start takes up again what it was at"
            );
        }
        answered.await;
        let queue = self.queue;
        let _ = web::block(move || queue.close()).await;
        outcome
    }
}

impl<M> App<M> {
    /// The port that is listened on: the one asked for, or the one that was free for port 0.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where a client on this machine reaches the server.
    pub fn local_url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    /// The key in the data folder, where none is configured.
    pub fn own_api_key(&self) -> Option<&OwnApiKey> {
        self.own_api_key.as_ref()
    }
}

fn rules_of<M>(endpoints: &[Endpoint<M>]) -> HashMap<EndpointId, InputRules> {
    endpoints.iter().map(|endpoint| (endpoint.id.clone(), endpoint.rules.clone())).collect()
}

/// How long an answer under way may take once the server stops.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// How long a step may take beyond the grace.
const STEP_GRACE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 10_000;

/// How webhooks are called: at public addresses, and those that the operator allows.
fn post_with(fetcher: Fetcher) -> Post {
    Arc::new(move |url, headers, body| {
        fetcher
            .post_json(url, headers, body.as_bytes(), webhooks::DEADLINE)
            .map_err(|error| error.to_string())
    })
}

fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), AppError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => AppError::PortInUse(address),
        _ => AppError::Listen { address, source },
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Makes the folder, closed to other users, and sees that it can be written to.
fn prepare_data_dir(path: &Path) -> Result<(), AppError> {
    let failed = |error: io::Error| AppError::DataDir {
        path: path.display().to_string(),
        reason: format!("{error}; name another with --data-dir"),
    };
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(failed)?;
    tempfile::tempfile_in(path).map_err(failed)?;
    Ok(())
}

fn api_keys(config: &Config) -> Result<(ApiKeys, Option<OwnApiKey>), SecretError> {
    Ok(match &config.access {
        Access::Everybody => (ApiKeys::off(), None),
        Access::Keys(keys) => (ApiKeys::new(keys.iter().map(String::as_str)), None),
        Access::OwnKey => {
            let own = secrets::own_api_key(&config.data_dir)?;
            (ApiKeys::new([own.key.as_str()]), Some(own))
        }
    })
}

/// The address that a client on this machine can use: one that stands for all is none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A few threads are plenty: they wait for the queue, and the cores are for the engine.
fn server_threads() -> usize {
    thread::available_parallelism().map_or(2, usize::from).clamp(1, 4)
}

fn ended_early<E: std::error::Error + Send + Sync + 'static>(ended: Result<io::Result<()>, E>) -> io::Error {
    match ended {
        Ok(Ok(())) => io::Error::other("it stopped by itself"),
        Ok(Err(error)) => error,
        Err(error) => io::Error::other(error),
    }
}

/// Waits for threads that have been asked to stop. A worker in the middle of a long step cannot be
/// interrupted, so the caller's patience ends this; its job is found by the next start, as after a
/// crash.
async fn join(threads: Vec<JoinHandle<()>>, queue: &JobQueue) {
    while threads.iter().any(|thread| !thread.is_finished()) {
        // Again and again: a worker may have looked for a stop just before it came, and wait for
        // work just after it was woken.
        queue.wake_workers();
        queue.wake_mail();
        rt::time::sleep(Duration::from_millis(20)).await;
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a background thread had panicked");
        }
    }
}
