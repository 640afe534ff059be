//! The state that every handler uses: built once, shared by all server threads.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::header::HOST;
use actix_web::http::uri::Authority;
use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::{ApiError, ApiKeys, Endpoints, HttpSettings, Limiter};
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
        let submitted = self.queue.submit(job).await?;
        self.metrics.job_submitted(surface, &endpoint);
        Ok(submitted)
    }

    /// A job, or 404.
    pub async fn find(&self, endpoint: &EndpointId, id: &JobId) -> Result<Job, ApiError> {
        self.queue.find(endpoint, id).await?.ok_or(ApiError::NO_JOB)
    }

    /// Waits for the job to end. After `wait`, or when the server stops, returns the job as it is.
    pub async fn wait(&self, endpoint: &EndpointId, id: &JobId, wait: Duration) -> Result<Job, ApiError> {
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
        match plain_host(request) {
            Some(host) => format!("http://{host}"),
            None => format!("http://{}", self.listen),
        }
    }
}

/// The request's `Host`, if it is only a host and perhaps a port. It goes into URLs that others open, so anything else
/// is not repeated.
fn plain_host(request: &HttpRequest) -> Option<String> {
    let mut hosts = request.headers().get_all(HOST);
    let host = hosts.next()?.to_str().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let sound = hosts.next().is_none() && !host.is_empty() && host.len() <= 255 && host.chars().all(plain);
    let authority: Authority = host.parse().ok().filter(|_| sound)?;
    (!authority.host().is_empty()).then(|| authority.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn urls_repeat_only_a_plain_host() {
        let host =
            |host: &str| plain_host(&TestRequest::default().insert_header((HOST, host)).to_http_request());
        for good in ["localhost:8000", "pictures.example", "[::1]:80", "10.0.0.1"] {
            assert_eq!(host(good).as_deref(), Some(good));
        }
        for bad in
            ["", "a b", "user@evil.example", "evil.example/path", "a?b", "a#b", "<script>", ":80", "a:b:c"]
        {
            assert_eq!(host(bad), None, "{bad}");
        }
        assert_eq!(host(&"a".repeat(300)), None);
    }
}
