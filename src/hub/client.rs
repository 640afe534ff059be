//! GET requests to hubs and to where they send us, by hand as far as the token and redirects go.
//!
//! Unlike `fetch`, which calls what strangers name, this calls what the operator named: any address will do,
//! and the environment's proxy is used. The token is for the hub's own origin and goes nowhere else.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderValue, Request, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::HubError;
use crate::domain::{WebUrl, WebUrlError};

const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Without a byte.
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

/// From which byte on, and only if the file is still the one with this validator (an `ETag` or a date).
#[derive(Debug, Clone, Copy)]
pub struct Range<'a> {
    pub from: u64,
    pub to: Option<u64>,
    pub unchanged: Option<&'a str>,
}

/// An answer that is no redirect.
pub struct Answer {
    /// Where it came from in the end.
    pub url: WebUrl,
    pub headers: HeaderMap,
    pub status: u16,
    /// The SHA-256 that the hub stated before it sent us elsewhere for the file.
    pub linked_sha256: Option<String>,
    body: Body,
}

impl Client {
    /// `token`: of the hub at `base`.
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

    /// Asks for `url`, follows redirects, and answers whatever comes in the end, of any status.
    pub fn get(&self, url: &WebUrl, range: Option<Range<'_>>) -> Result<Answer, HubError> {
        let mut url = url.clone();
        let mut linked_sha256 = None;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.call(&url, range)?;
            linked_sha256 = linked_sha256.or_else(|| linked_sha256_of(response.headers()));
            if let Some(next) = redirect(&url, &response)? {
                url = next;
                continue;
            }
            let (parts, body) = response.into_parts();
            let (status, headers) = (parts.status.as_u16(), parts.headers);
            return Ok(Answer { url, headers, status, linked_sha256, body });
        }
        Err(HubError::TooManyRedirects { host: url.host().to_owned(), limit: MAX_REDIRECTS })
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
        let refused = || {
            HubError::Reference("HF_TOKEN should be a token such as hf_…, of letters and digits".to_owned())
        };
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

    /// What shows that a file is still the same one: a strong `ETag`, else its date.
    pub fn validator(&self) -> Option<&str> {
        let etag = self.header(header::ETAG).filter(|etag| etag.starts_with('"') && etag.len() <= 512);
        etag.or_else(|| self.header(header::LAST_MODIFIED))
    }

    /// The answer to a range: its first byte and the file's size, where they are stated.
    pub fn content_range(&self) -> Option<(u64, Option<u64>)> {
        let (range, size) = self.header(header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
        let (from, _) = range.split_once('-')?;
        Some((from.parse().ok()?, size.parse().ok()))
    }

    pub fn content_length(&self) -> Option<u64> {
        self.body.content_length()
    }

    /// The error that a status stands for. `what`: what was asked for.
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

    /// The whole body, of at most `limit` bytes.
    pub fn read(self, limit: u64, what: &str) -> Result<Vec<u8>, HubError> {
        let url = self.url.clone();
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| cut(error, &url))?;
        if bytes.len() as u64 > limit {
            let reason = format!("it is larger than {} MiB", limit >> 20);
            return Err(HubError::Answer { host: url.host().to_owned(), what: what.to_owned(), reason });
        }
        Ok(bytes)
    }
}

/// Where an answer sends us, if it does.
fn redirect(url: &WebUrl, response: &Response<Body>) -> Result<Option<WebUrl>, HubError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let host = || url.host().to_owned();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let next = location.ok_or(WebUrlError::NoUrl).and_then(|location| url.join(location));
    let next = next.map_err(|reason| HubError::Redirect { host: host(), reason })?;
    if url.is_https() && !next.is_https() {
        return Err(HubError::Downgrade { host: host() });
    }
    Ok(Some(next))
}

fn linked_sha256_of(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get("x-linked-etag")?.to_str().ok()?;
    super::sha256_text(etag.trim_start_matches("W/").trim_matches('"'))
}

/// What it means that a body broke off.
pub fn cut(error: io::Error, url: &WebUrl) -> HubError {
    failed(ureq::Error::from(error), url)
}

fn failed(error: ureq::Error, url: &WebUrl) -> HubError {
    let host = url.host().to_owned();
    match error {
        ureq::Error::Timeout(_) => HubError::TimedOut { host, limit: SILENCE },
        ureq::Error::HostNotFound => HubError::NoHost { host },
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => HubError::Untrusted { host },
        // How a failed handshake comes out of rustls.
        ureq::Error::Io(error) if url.is_https() && error.kind() == ErrorKind::InvalidData => {
            HubError::Untrusted { host }
        }
        // What the system's look-up says of names that it does not know.
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

    fn to(location: &str) -> Response<Body> {
        Response::builder().status(307).header("location", location).body(Body::builder().data("")).unwrap()
    }

    #[test]
    fn https_does_not_lead_to_http() {
        let url: WebUrl = "https://hub.example/a".parse().unwrap();
        let downgrade = redirect(&url, &to("http://hub.example/b")).unwrap_err();
        assert_eq!(downgrade.to_string(), "hub.example redirects from https to http");
        assert_eq!(redirect(&url, &to("/b")).unwrap().unwrap().as_str(), "https://hub.example/b");
        assert!(redirect(&url, &to("file:///b")).is_err());
    }

    #[test]
    fn a_token_is_never_shown() {
        let base = "https://hub.example".parse().unwrap();
        let client = Client::new(RootCerts::WebPki, &base, Some("hf_secret")).unwrap();
        assert!(client.has_token() && !format!("{client:?}").contains("secret"));
    }
}
