//! GET requests to hubs and to the servers that they redirect to.
//!
//! `fetch` calls URLs from strangers. This client calls URLs from the operator, so every address is allowed, and the
//! proxy from the environment is used. The token is sent only to the origin of the hub.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue, Request, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::HubError;
use crate::domain::WebUrl;
use crate::redirects;

const CONNECT_TIME: Duration = Duration::from_secs(20);
/// The longest time without a byte.
const SILENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 * 1024;
const USER_AGENT: &str = concat!("stablehand/", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub struct Client {
    agent: Agent,
    token: Option<Token>,
}

#[derive(Debug)]
struct Token {
    origin: url::Origin,
    bearer: HeaderValue,
}

/// A range of bytes. With a validator (an `ETag` or a date), the server sends the range only if the file has not
/// changed.
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    pub from: u64,
    pub to: Option<u64>,
    pub unchanged: Option<&'a str>,
}

/// The final response, after all redirects.
pub struct Answer {
    /// The URL that it came from.
    pub url: WebUrl,
    pub headers: HeaderMap,
    pub status: u16,
    /// The SHA-256 that the hub announced when it redirected to another server.
    pub linked_sha256: Option<String>,
    body: Body,
}

impl Client {
    /// `token` belongs to the hub at `base`.
    pub fn new(roots: RootCerts, base: &WebUrl, token: Option<&str>) -> Result<Self, HubError> {
        let token = token.map(|token| Token::new(token, base)).transpose()?;
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(USER_AGENT)
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_resolve(Some(CONNECT_TIME))
            .timeout_connect(Some(CONNECT_TIME))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Self { agent: Agent::new_with_config(config), token })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Requests `url` and follows redirects. Returns the final response with any status.
    pub fn get(&self, url: &WebUrl, range: Option<Range<'_>>) -> Result<Answer, HubError> {
        let mut linked_sha256 = None;
        let (url, response) = redirects::follow(url, MAX_REDIRECTS, |url| {
            let response = self.call(url, range)?;
            linked_sha256 = linked_sha256.take().or_else(|| linked_sha256_in(response.headers()));
            Ok::<_, HubError>(response)
        })?;
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Ok(Answer { url, headers, status, linked_sha256, body })
    }

    fn call(&self, url: &WebUrl, range: Option<Range<'_>>) -> Result<Response<Body>, HubError> {
        let mut request = Request::get(url.as_str());
        if let Some(token) = self.token.as_ref().filter(|token| token.origin == url.as_url().origin()) {
            request = request.header(header::AUTHORIZATION, &token.bearer);
        }
        if let Some(Range { from, to, unchanged }) = range {
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            request = request.header(header::RANGE, format!("bytes={from}-{to}"));
            if let Some(validator) = unchanged {
                request = request.header(header::IF_RANGE, validator);
            }
        }
        let request = request.body(()).map_err(|error| failed(error.into(), url))?;
        self.agent.run(request).map_err(|error| failed(error, url))
    }
}

impl Token {
    fn new(token: &str, base: &WebUrl) -> Result<Self, HubError> {
        let refused =
            || HubError::Reference("HF_TOKEN should be a token such as hf_…, without spaces".to_owned());
        if !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(refused());
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| refused())?;
        bearer.set_sensitive(true);
        Ok(Self { origin: base.as_url().origin(), bearer })
    }
}

impl Answer {
    pub fn host(&self) -> &str {
        self.url.host()
    }

    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What identifies this version of a file: a strong `ETag`, otherwise its date.
    pub fn validator(&self) -> Option<&str> {
        let etag = self.header(header::ETAG).filter(|etag| etag.starts_with('"') && etag.len() <= 512);
        etag.or_else(|| self.header(header::LAST_MODIFIED))
    }

    /// The first byte of the range and the size of the file, as far as the response states them.
    pub fn content_range(&self) -> Option<(u64, Option<u64>)> {
        let (range, size) = self.header(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        let (from, _) = range.split_once('-')?;
        Some((from.parse().ok()?, size.parse().ok()))
    }

    pub fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// The error for the status of this response. `what` names what was requested.
    pub fn refusal(&self, what: impl Into<String>) -> HubError {
        let seconds = self.header(header::RETRY_AFTER).and_then(|text| text.parse().ok());
        HubError::Status {
            host: self.host().to_owned(),
            status: self.status,
            what: what.into(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    pub fn into_reader(self) -> impl Read {
        self.body.into_reader()
    }

    /// Reads the whole body, up to `limit` bytes.
    pub fn read(self, limit: u64, what: &str) -> Result<Vec<u8>, HubError> {
        let url = self.url.clone();
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| interrupted(error, &url))?;
        if bytes.len() as u64 > limit {
            let reason = format!("it is larger than {} MiB", limit >> 20);
            return Err(HubError::Answer { host: url.host().to_owned(), what: what.to_owned(), reason });
        }
        Ok(bytes)
    }
}

fn linked_sha256_in(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get("x-linked-etag")?.to_str().ok()?;
    super::sha256_text(etag.trim_start_matches("W/").trim_matches('"'))
}

/// The error for a body that broke off.
pub fn interrupted(error: io::Error, url: &WebUrl) -> HubError {
    failed(ureq::Error::from(error), url)
}

fn failed(error: ureq::Error, url: &WebUrl) -> HubError {
    let host = url.host().to_owned();
    match error {
        ureq::Error::Timeout(_) => HubError::TimedOut { host, limit: SILENCE },
        ureq::Error::HostNotFound => HubError::NoHost { host },
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => HubError::Untrusted { host },
        // rustls reports a failed handshake like this.
        ureq::Error::Io(error) if url.is_https() && error.kind() == ErrorKind::InvalidData => {
            HubError::Untrusted { host }
        }
        // The system reports an unknown name like this.
        ureq::Error::Io(error) if error.to_string().contains("failed to lookup address") => {
            HubError::NoHost { host }
        }
        ureq::Error::Io(error) => HubError::Unreachable { host, reason: error.to_string() },
        error => HubError::Unreachable { host, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let base = "https://hub.example".parse().unwrap();
        let client = Client::new(RootCerts::WebPki, &base, Some("hf_secret")).unwrap();
        assert!(client.has_token() && !format!("{client:?}").contains("secret"));
    }
}
