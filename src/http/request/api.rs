//! The state that every handler uses: built once, shared by all server threads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpRequest;
use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::body::BodyMemory;
use super::{ApiError, ApiKeys, Endpoints, HttpSettings, Limiter, proxies, trace};
use crate::domain::{EndpointId, Job, JobId, NewJob, Timestamp};
use crate::library::Library;
use crate::metrics::Metrics;
use crate::queue::{Drained, JobQueue, Submitted};
use crate::wire::UrlSigner;

/// What handlers need of the server.
pub struct Api {
    pub queue: JobQueue,
    pub endpoints: Endpoints,
    pub keys: ApiKeys,
    pub limiter: Limiter,
    pub metrics: Metrics,
    pub settings: HttpSettings,
    /// For the bodies of requests.
    pub body_memory: BodyMemory,
    /// When this server started.
    pub started_at: Timestamp,
    pub signer: UrlSigner,
    /// The configured base of image URLs, without a trailing slash.
    pub public_url: Option<String>,
    /// The address that the server listens on: the base of image URLs when a request has no usable `Host`.
    pub listen: SocketAddr,
    /// How much memory is in use.
    pub memory: MemoryProbe,
    /// The models on the disk.
    pub library: Library,
    /// Becomes true when the server stops. Requests that wait are answered then.
    pub stopping: watch::Receiver<bool>,
}

/// Asks for the memory of the machine and of its card. None is unknown. Both block.
#[derive(Clone, Copy)]
pub struct MemoryProbe {
    pub machine: fn() -> Option<MemoryUse>,
    pub card: fn() -> Option<MemoryUse>,
}

/// In bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub used: u64,
    pub total: u64,
}

impl Api {
    /// Queues a job. `surface` says which API it came through.
    pub async fn submit(&self, job: NewJob, surface: &'static str) -> Result<Submitted, ApiError> {
        let endpoint = job.endpoint.clone();
        let job = NewJob { trace: job.trace.or_else(trace::parent), ..job };
        let submitted = self.queue.submit(job).await?;
        self.metrics.job_submitted(surface, &endpoint);
        Ok(submitted)
    }

    /// A job, or 404.
    pub async fn find(&self, endpoint: &EndpointId, id: &JobId) -> Result<Arc<Job>, ApiError> {
        self.queue.find(endpoint, id).await?.ok_or(ApiError::NO_JOB)
    }

    /// Waits for the job to end. After `wait`, or when the server stops, returns the job as it is.
    pub async fn wait(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        wait: Duration,
    ) -> Result<Arc<Job>, ApiError> {
        let mut stopping = self.stopping.clone();
        let stopped = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
        let ended = std::pin::pin!(self.queue.wait(endpoint, id, wait));
        match select(ended, stopped).await {
            Either::Left((job, _)) => job?.ok_or(ApiError::NO_JOB),
            Either::Right(_) => self.find(endpoint, id).await,
        }
    }

    /// Waits for output that is new since the last drain. After `hold`, or when the server stops, returns what there is.
    pub async fn drain(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        hold: Duration,
    ) -> Result<Drained, ApiError> {
        let mut stopping = self.stopping.clone();
        let stopped = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
        let drained = std::pin::pin!(self.queue.drain(endpoint, id, hold));
        let drained = match select(drained, stopped).await {
            Either::Left((drained, _)) => drained,
            Either::Right(_) => self.queue.drain(endpoint, id, Duration::ZERO).await,
        };
        drained?.ok_or(ApiError::NO_JOB)
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The address at which this client reaches the server.
    pub fn base_url(&self, request: &HttpRequest) -> String {
        if let Some(url) = &self.public_url {
            return url.clone();
        }
        proxies::base_url(request).unwrap_or_else(|| format!("http://{}", self.listen))
    }
}
