//! GET requests to hubs and to the servers that they redirect to.
//!
//! `fetch` calls URLs from strangers. This client calls URLs from the operator, so every address is allowed, and the
//! proxy from the environment is used. Where a running server's clients name the URL, the rules of `fetch` hold for its
//! addresses, without a proxy. Tokens are secret: the hub's is sent only to the origin of the hub, and the one for
//! downloads only to the origin of the URL that the operator gave.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::http::{HeaderMap, HeaderValue, Request, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::AgentScope;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use super::HubError;
use crate::domain::WebUrl;
use crate::fetch::{AllowedAddresses, CheckedResolver, is_refusal};
use crate::redirects::{self, RedirectError};

const CONNECT_TIME: Duration = Duration::from_secs(20);
/// The longest time without a byte.
const SILENCE: Duration = Duration::from_secs(60);
const MAX_REDIRECTS: usize = 5;
const MAX_HEADER_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct Client {
    agent: Agent,
    hub: url::Origin,
    hub_token: Option<HeaderValue>,
    download_token: Option<HeaderValue>,
}

/// Whose URL is called, and so which token may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A URL that the hub's API names.
    Hub,
    /// A URL that the operator gave.
    Given,
}

/// Why a call brought no answer.
pub enum Stopped<T> {
    Failed(HubError),
    /// The caller stopped before a redirect.
    At(T),
}

impl<T> From<RedirectError> for Stopped<T> {
    fn from(error: RedirectError) -> Self {
        Self::Failed(error.into())
    }
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
    /// The last `Content-Disposition` on the way.
    pub disposition: Option<HeaderValue>,
    body: Body,
}

impl Client {
    /// `hub_token` belongs to the hub at `base`, `download_token` to the site of the URL that will be given.
    pub fn new(
        roots: RootCerts,
        base: &WebUrl,
        hub_token: Option<&str>,
        download_token: Option<&str>,
    ) -> Result<Self, HubError> {
        let bearer = |name, token: Option<&str>| token.map(|token| bearer(name, token)).transpose();
        let hub_token = bearer("HF_TOKEN", hub_token)?;
        let download_token = bearer("STABLEHAND_DOWNLOAD_TOKEN", download_token)?;
        let (agent, hub) = (Agent::new_with_config(config(roots).build()), base.as_url().origin());
        Ok(Self { agent, hub, hub_token, download_token })
    }

    /// The same for URLs that a server's clients name: it calls only public addresses and those that are `allowed`, and
    /// sends no token but the hub's.
    pub fn for_clients(self, roots: RootCerts, allowed: AllowedAddresses) -> Self {
        let resolver = CheckedResolver { lookup: DefaultResolver::default(), allowed };
        let config = config(roots).proxy(None).build();
        let agent = Agent::with_parts(config, DefaultConnector::new(), resolver);
        Self { agent, download_token: None, ..self }
    }

    pub fn has_hub_token(&self) -> bool {
        self.hub_token.is_some()
    }

    /// Whether the URL is one of the hub's. It gets the hub's token then, and no other.
    pub fn is_of_hub(&self, url: &WebUrl) -> bool {
        url.as_url().origin() == self.hub
    }

    pub fn has_download_token(&self) -> bool {
        self.download_token.is_some()
    }

    /// Requests `url` and follows redirects. Returns the final response with any status.
    pub fn get(&self, url: &WebUrl, range: Option<Range<'_>>, access: Access) -> Result<Answer, HubError> {
        self.get_until(url, range, access, |_| None::<Infallible>).map_err(|stopped| match stopped {
            Stopped::Failed(error) => error,
            Stopped::At(never) => match never {},
        })
    }

    /// The same, but stops before it calls a URL for which `stop` returns something.
    pub fn get_until<T>(
        &self,
        url: &WebUrl,
        range: Option<Range<'_>>,
        access: Access,
        stop: impl Fn(&WebUrl) -> Option<T>,
    ) -> Result<Answer, Stopped<T>> {
        let (mut linked_sha256, mut disposition) = (None, None);
        let given = url.as_url().origin();
        let (url, response) = redirects::follow(url, MAX_REDIRECTS, |url| {
            if let Some(found) = stop(url) {
                return Err(Stopped::At(found));
            }
            let token = self.token(&url.as_url().origin(), &given, access);
            let response = self.call(url, range, token).map_err(Stopped::Failed)?;
            linked_sha256 = linked_sha256.take().or_else(|| linked_sha256_in(response.headers()));
            disposition = response.headers().get(header::CONTENT_DISPOSITION).cloned().or(disposition.take());
            Ok(response)
        })?;
        let (parts, body) = response.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Ok(Answer { url, headers, status, linked_sha256, disposition, body })
    }

    /// The token to send to `origin`, where the first URL was at `given`.
    fn token(&self, origin: &url::Origin, given: &url::Origin, access: Access) -> Option<&HeaderValue> {
        if *origin == self.hub {
            return self.hub_token.as_ref();
        }
        self.download_token.as_ref().filter(|_| access == Access::Given && origin == given)
    }

    fn call(
        &self,
        url: &WebUrl,
        range: Option<Range<'_>>,
        token: Option<&HeaderValue>,
    ) -> Result<Response<Body>, HubError> {
        let mut request = Request::get(url.as_str());
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
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

fn config(roots: RootCerts) -> ConfigBuilder<AgentScope> {
    redirects::agent(CONNECT_TIME, MAX_HEADER_BYTES)
        .timeout_recv_response(Some(SILENCE))
        .timeout_per_read(Some(SILENCE))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
}

/// The header that sends the token. `name` is the variable that it comes from.
fn bearer(name: &str, token: &str) -> Result<HeaderValue, HubError> {
    let refused = || {
        let example = if name == "HF_TOKEN" { " such as hf_…" } else { "" };
        HubError::Reference(format!("{name} should be a token{example}, without spaces"))
    };
    if !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(refused());
    }
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| refused())?;
    bearer.set_sensitive(true);
    Ok(bearer)
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
        error if is_refusal(&error) => HubError::NotPublic { host },
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
    fn a_token_is_never_shown_and_goes_only_where_it_belongs() {
        let base = "https://hub.example".parse().unwrap();
        let client = Client::new(RootCerts::WebPki, &base, Some("hf_secret"), Some("site_secret")).unwrap();
        assert!(client.has_hub_token() && !format!("{client:?}").contains("secret"));
        let origin = |text: &str| url::Url::parse(text).unwrap().origin();
        let (hub, site) = (origin("https://hub.example"), origin("https://site.example"));
        let sent = |to: &url::Origin, given: &url::Origin, access| {
            let token = client.token(to, given, access)?;
            Some(token.to_str().unwrap().to_owned())
        };
        assert_eq!(sent(&hub, &hub, Access::Hub).as_deref(), Some("Bearer hf_secret"));
        assert_eq!(sent(&site, &site, Access::Given).as_deref(), Some("Bearer site_secret"));
        for other in ["https://other.example", "http://site.example", "https://site.example:444"] {
            assert_eq!(sent(&origin(other), &site, Access::Given), None, "{other}");
        }
        // A hub's API may name any host, and the token for downloads is not the hub's to give away.
        assert_eq!(sent(&site, &site, Access::Hub), None);
        assert_eq!(sent(&hub, &hub, Access::Given).as_deref(), Some("Bearer hf_secret"));
    }
}
