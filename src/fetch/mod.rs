//! Calls to URLs that clients name: input pictures, webhooks, buckets.
//!
//! Every such URL may be an attack on the network of this server. So `fetch` calls only public addresses and those
//! that the operator allows ([`AllowedAddresses`]). It looks each host name up once, checks the addresses, and connects
//! only to those ([`resolver`]). It checks the target of each redirect like the first URL, and it limits size and time.
//! It uses no proxy from the environment, no cookies and no compression, and keeps no connection open. It knows nothing
//! about jobs or API keys. All calls block.

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
pub use resolver::{CheckedResolver, is_refusal};

use crate::domain::{MAX_IMAGE_BYTES, WebUrl};
use crate::redirects;

/// Makes the calls. Clones share one HTTP agent.
#[derive(Debug, Clone)]
pub struct Fetcher {
    agent: Agent,
    limits: Limits,
}

/// The limits on the size of a picture and on the time to fetch it.
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

/// The limit for the DNS look-up, and again for connecting (with the TLS handshake).
const CONNECT_TIME: Duration = Duration::from_secs(5);
const MAX_REDIRECTS: usize = 3;
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// The formats that are read come first: a server that can choose would otherwise send AVIF.
const ACCEPT: &str = "image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.1";

impl Fetcher {
    pub fn new(allowed: AllowedAddresses) -> Result<Self, FetchError> {
        Ok(Self::with(allowed, root_certificates()?, DefaultResolver::default(), Limits::default()))
    }

    fn with(allowed: AllowedAddresses, roots: RootCerts, lookup: impl Resolver, limits: Limits) -> Self {
        let config = redirects::agent(CONNECT_TIME, MAX_HEADER_BYTES)
            .proxy(None)
            .max_idle_connections(0)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let resolver = CheckedResolver { lookup, allowed };
        Self { agent: Agent::with_parts(config, DefaultConnector::new(), resolver), limits }
    }

    /// Fetches the file at `url`: at most [`MAX_IMAGE_BYTES`], within 15 s in total, with at most 3 redirects.
    pub fn fetch_image(&self, url: &WebUrl) -> Result<Vec<u8>, FetchError> {
        let deadline = Deadline::after(self.limits.image_time);
        let (url, response) = redirects::follow(url, MAX_REDIRECTS, |url| {
            let request = Request::get(url.as_str()).header(header::ACCEPT, ACCEPT);
            self.call(request.body(()), url, deadline)
        })?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status {
                host: url.host().to_owned(),
                status: response.status().as_u16(),
            });
        }
        self.read(response.into_body(), &url, deadline)
    }

    /// Posts JSON and returns the status of the response, whatever it is. Redirects are not followed. `time` limits the
    /// whole call.
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
        let failed = |error| FetchError::from_call(error, url, deadline.limit);
        let request = request.map_err(|error| failed(error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(deadline.left())).build();
        self.agent.run(request).map_err(failed)
    }

    /// Reads the body up to the limit. The server's own word about the length is not trusted.
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
            .map_err(|error| FetchError::from_call(error.into(), url, deadline.limit))?;
        if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
    }
}

/// The time at which a call, with all its redirects, must be over.
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

/// The root certificates for all outgoing calls: those in the file that `SSL_CERT_FILE` names, otherwise Mozilla's.
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
