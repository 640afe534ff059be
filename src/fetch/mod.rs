//! Calls to URLs that clients name: pictures to start from, webhooks, buckets.
//!
//! Every such URL is an attack on the network this server stands in until shown otherwise. So only public
//! addresses are spoken to, or those the operator allows ([`AllowedAddresses`]); a name is looked up once
//! and only the addresses that were checked are connected to ([`resolver`]); redirects are followed by
//! hand, each checked like the first URL; size and time are bounded. No proxy from the environment, no
//! cookies, no compression, no connection kept. Nothing is known here of jobs or of who asks. All calls
//! block.

mod addresses;
mod bucket;
mod error;
mod resolver;
#[cfg(test)]
pub(crate) mod tests;

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::http::{Request, Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, AsSendBody, Body};

pub use addresses::AllowedAddresses;
pub use error::FetchError;
use resolver::CheckedResolver;

use crate::domain::{MAX_IMAGE_BYTES, WebUrl, WebUrlError};

/// Calls outside. A clone is the same one.
#[derive(Debug, Clone)]
pub struct Fetcher {
    agent: Agent,
    limits: Limits,
}

/// How large and how slow a picture may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    image_bytes: u64,
    image_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { image_bytes: MAX_IMAGE_BYTES as u64, image_time: Duration::from_secs(15) }
    }
}

/// Looking a name up, and connecting with the handshake of TLS, each.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const MAX_REDIRECTS: usize = 3;
const MAX_HEADER_BYTES: usize = 32 * 1024;
const USER_AGENT: &str = concat!("stablehand/", env!("CARGO_PKG_VERSION"));

impl Fetcher {
    pub fn new(allowed: AllowedAddresses) -> Result<Self, FetchError> {
        Ok(Self::with(allowed, root_certificates()?, DefaultResolver::default(), Limits::default()))
    }

    fn with(allowed: AllowedAddresses, roots: RootCerts, lookup: impl Resolver, limits: Limits) -> Self {
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_resolve(Some(CONNECT_TIME))
            .timeout_connect(Some(CONNECT_TIME))
            .max_idle_connections(0)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let resolver = CheckedResolver { lookup, allowed };
        Self { agent: Agent::with_parts(config, DefaultConnector::new(), resolver), limits }
    }

    /// What is at `url`: at most [`MAX_IMAGE_BYTES`], within 15 s in all, after at most 3 redirects.
    pub fn fetch_image(&self, url: &WebUrl) -> Result<Vec<u8>, FetchError> {
        let deadline = Deadline::after(self.limits.image_time);
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let request = Request::get(url.as_str()).header(header::ACCEPT, "image/*");
            let response = self.call(request.body(()), &url, deadline)?;
            if let Some(next) = redirect(&url, &response)? {
                url = next;
                continue;
            }
            if response.status() != StatusCode::OK {
                return Err(FetchError::Status {
                    host: url.host().to_owned(),
                    status: response.status().as_u16(),
                });
            }
            return self.read(response.into_body(), &url, deadline);
        }
        Err(FetchError::TooManyRedirects { host: url.host().to_owned(), limit: MAX_REDIRECTS })
    }

    /// Posts JSON and says with which status it was answered, whatever that is; a redirect is an answer like
    /// any other. `time`: for the whole call.
    pub fn post_json(
        &self,
        url: &WebUrl,
        headers: &[(&str, &str)],
        body: &[u8],
        time: Duration,
    ) -> Result<u16, FetchError> {
        let request = Request::post(url.as_str()).header(header::CONTENT_TYPE, "application/json");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = self.call(request.body(body), url, Deadline::after(time))?;
        Ok(response.status().as_u16())
    }

    fn call(
        &self,
        request: Result<Request<impl AsSendBody>, ureq::http::Error>,
        url: &WebUrl,
        deadline: Deadline,
    ) -> Result<Response<Body>, FetchError> {
        let failed = |error| FetchError::of(error, url, deadline.limit);
        let request = request.map_err(|error| failed(error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(deadline.left())).build();
        self.agent.run(request).map_err(failed)
    }

    /// The body, however long it was said to be.
    fn read(&self, body: Body, url: &WebUrl, deadline: Deadline) -> Result<Vec<u8>, FetchError> {
        let limit = self.limits.image_bytes;
        let too_large = || FetchError::TooLarge { limit_mib: limit >> 20 };
        if body.content_length().is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut bytes = Vec::new();
        body.into_reader()
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| FetchError::of(error.into(), url, deadline.limit))?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
    }
}

/// When a call must have come to its end, redirects and all.
#[derive(Clone, Copy)]
struct Deadline {
    limit: Duration,
    at: Instant,
}

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self { limit, at: Instant::now() + limit }
    }

    fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}

/// Where an answer sends us, if it does.
fn redirect(url: &WebUrl, response: &Response<Body>) -> Result<Option<WebUrl>, FetchError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let host = || url.host().to_owned();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let next = location.ok_or(WebUrlError::NoUrl).and_then(|location| url.join(location));
    let next = next.map_err(|reason| FetchError::Redirect { host: host(), reason })?;
    if url.is_https() && !next.is_https() {
        return Err(FetchError::Downgrade { host: host() });
    }
    Ok(Some(next))
}

/// Whom all calls outside trust: Mozilla's root certificates, or those in the file that `SSL_CERT_FILE` names.
pub fn root_certificates() -> Result<RootCerts, FetchError> {
    match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        Some(path) => certificates(Path::new(&path)),
        None => Ok(RootCerts::WebPki),
    }
}

fn certificates(path: &Path) -> Result<RootCerts, FetchError> {
    let pem = std::fs::read(path).map_err(|_| FetchError::CertFile)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect::<Result<_, _>>()
        .map_err(|_| FetchError::CertFile)?;
    if found.is_empty() { Err(FetchError::CertFile) } else { Ok(found.into()) }
}
