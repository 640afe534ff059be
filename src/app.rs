//! The whole server put together: built, serving, and stopped in the one right order.
//!
//! Generic over how an engine is made, so that the command line brings the real one and tests
//! bring a script. Engines are built on their workers' threads, while the server answers already.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::pin::pin;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use actix_web::{rt, web};
use futures_util::future::{Either, select};
use tokio::sync::{mpsc, watch};

use crate::config::{Access, Config};
use crate::domain::{Clock, InputRules};
use crate::fetch::{FetchError, Fetcher};
use crate::http::{self, Api, ApiKeys, ServerLimits};
use crate::queue::{JobQueue, QueueError, Stop};
use crate::secrets::{self, OwnApiKey, SecretError};
use crate::sweeper;
use crate::wire::UrlSigner;
use crate::worker::{self, Assignment, Engine};

/// A model as the server needs it: what it can be asked for, known without loading it, and how to
/// make an engine of it, once a worker.
pub struct Model<F> {
    pub rules: InputRules,
    /// `Fn() -> Result<E, String>`, its error a sentence for the operator.
    pub make_engine: F,
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
pub struct App<F> {
    config: Config,
    queue: JobQueue,
    api: web::Data<Api>,
    listener: TcpListener,
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    own_api_key: Option<OwnApiKey>,
    rules: InputRules,
    make_engine: F,
    fetcher: Fetcher,
}

impl<E, F> App<F>
where
    E: Engine,
    F: Fn() -> Result<E, String> + Clone + Send + 'static,
{
    /// Takes the data folder and the port. Blocks, but for no longer than the database's opening.
    pub fn build(config: &Config, model: Model<F>, clock: Clock) -> Result<Self, AppError> {
        // The port first: a second server on one machine should fail before it touches the jobs.
        let (listener, address) = listen(config.listen)?;
        prepare_data_dir(&config.data_dir)?;
        let signer = UrlSigner::new(secrets::signing_key(&config.data_dir)?);
        let (keys, own_api_key) = api_keys(config)?;
        let queue = JobQueue::open(&config.data_dir, config.queue.clone(), clock)
            .map_err(|source| AppError::Queue { path: config.data_dir.display().to_string(), source })?;
        let (stopping, stop_seen) = watch::channel(false);
        let api = web::Data::new(Api {
            queue: queue.clone(),
            endpoints: HashMap::from([(config.endpoint.clone(), model.rules.clone())]),
            keys,
            signer,
            public_url: config.public_url.clone(),
            listen: reachable(address),
            stopping: stop_seen,
        });
        let Model { rules, make_engine } = model;
        let fetcher = Fetcher::new(config.allow_addresses.clone())?;
        Ok(Self {
            config: config.clone(),
            queue,
            api,
            listener,
            address,
            stopping,
            own_api_key,
            rules,
            make_engine,
            fetcher,
        })
    }

    /// Serves until `stop` comes, a worker cannot build its engine, or the server breaks.
    ///
    /// The order of an end: those who wait are answered and no new connection is taken; the workers
    /// finish or hand back what they hold, within the grace; the sweeper rests; the queue is closed
    /// last, since all others write to it.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()>) -> Result<(), AppError> {
        let limits = ServerLimits {
            threads: server_threads(),
            connections: MAX_CONNECTIONS,
            shutdown_timeout: ANSWER_GRACE,
        };
        let server = http::serve(self.listener, self.api, limits)?;
        let handle = server.handle();
        let mut server = rt::spawn(server);

        let signal = Stop::default();
        let (failed, mut failures) = mpsc::unbounded_channel();
        let mut threads = Vec::new();
        for _ in 0..self.config.workers {
            let failed = failed.clone();
            let tell = move |ready: Result<(), String>| {
                if let Err(sentence) = ready {
                    let _ = failed.send(sentence);
                }
            };
            let (queue, factory) = (self.queue.clone(), self.make_engine.clone());
            let assignment = Assignment {
                endpoint: self.config.endpoint.clone(),
                rules: self.rules.clone(),
                fetcher: self.fetcher.clone(),
            };
            threads.push(worker::spawn(queue, assignment, factory, signal.clone(), tell)?);
        }
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
            tracing::warn!("a worker does not stop; its job will be taken up again by the next start");
        }
        answered.await;
        let queue = self.queue;
        let _ = web::block(move || queue.close()).await;
        outcome
    }
}

impl<F> App<F> {
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

/// How long an answer under way may take once the server stops.
const ANSWER_GRACE: Duration = Duration::from_secs(5);
/// How long a step may take beyond the grace.
const STEP_GRACE: Duration = Duration::from_secs(5);
const MAX_CONNECTIONS: usize = 10_000;

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
        rt::time::sleep(Duration::from_millis(20)).await;
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a background thread had panicked");
        }
    }
}
