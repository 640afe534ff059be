//! HTTP redirects, followed by hand for the rooms that call other servers: `fetch` and `hub`.
//!
//! A redirect's target must pass the same checks as the first URL, and https never leads to http. Which addresses
//! may be called, and which of them gets a token, is up to the caller, who makes each call itself.

use std::time::Duration;

use percent_encoding::{AsciiSet, percent_encode};
use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::http::{HeaderValue, Response, header};
use ureq::typestate::AgentScope;

use crate::domain::{WebUrl, WebUrlError};

const USER_AGENT: &str = concat!("stablehand/", env!("CARGO_PKG_VERSION"));

/// What all agents have in common: they follow no redirect themselves, and get files as they are.
pub fn agent(connect_time: Duration, max_header_bytes: usize) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(USER_AGENT)
        .accept_encoding("identity")
        .max_response_header_size(max_header_bytes)
        .timeout_resolve(Some(connect_time))
        .timeout_connect(Some(connect_time))
}

/// Why a redirect is not followed. It names only the host, because paths and queries may hold keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    #[error("{host} redirects to a URL that {reason}")]
    Target { host: String, reason: WebUrlError },
    #[error("{host} redirects from https to http")]
    Downgrade { host: String },
    #[error("{host} redirects more than {limit} times")]
    TooMany { host: String, limit: usize },
}

/// Calls `url`, and then the target of each redirect, up to `limit` redirects. Returns the first response that is
/// not a redirect, with the URL that it came from.
pub fn follow<B, E: From<RedirectError>>(
    url: &WebUrl,
    limit: usize,
    mut call: impl FnMut(&WebUrl) -> Result<Response<B>, E>,
) -> Result<(WebUrl, Response<B>), E> {
    let mut url = url.clone();
    for _ in 0..=limit {
        let response = call(&url)?;
        match target(&url, &response)? {
            Some(next) => url = next,
            None => return Ok((url, response)),
        }
    }
    Err(RedirectError::TooMany { host: url.host().to_owned(), limit }.into())
}

/// The URL that `response` redirects to, if it is a redirect.
fn target<B>(url: &WebUrl, response: &Response<B>) -> Result<Option<WebUrl>, RedirectError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let host = || url.host().to_owned();
    let location = response.headers().get(header::LOCATION).map(location_text);
    let next = location.ok_or(WebUrlError::NoUrl).and_then(|location| url.join(&location));
    let next = next.map_err(|reason| RedirectError::Target { host: host(), reason })?;
    if url.is_https() && !next.is_https() {
        return Err(RedirectError::Downgrade { host: host() });
    }
    Ok(Some(next))
}

/// A `Location` header as browsers read it: many servers send raw UTF-8, and every byte that is not ASCII is then
/// percent-encoded as it stands.
fn location_text(value: &HeaderValue) -> String {
    percent_encode(value.as_bytes(), &AsciiSet::EMPTY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web_url(text: &str) -> WebUrl {
        text.parse().unwrap()
    }

    /// The target of a redirect from `https://pictures.example/a/b` with this `Location`.
    fn target_of(location: &[u8]) -> Result<String, RedirectError> {
        let value = HeaderValue::from_bytes(location).unwrap();
        let response = Response::builder().status(307).header(header::LOCATION, value).body(()).unwrap();
        let target = target(&web_url("https://pictures.example/a/b"), &response)?;
        Ok(target.unwrap().as_str().to_owned())
    }

    #[test]
    fn https_does_not_lead_to_http() {
        let downgrade = target_of(b"http://pictures.example/c").unwrap_err();
        assert_eq!(downgrade.to_string(), "pictures.example redirects from https to http");
        assert_eq!(target_of(b"c").unwrap(), "https://pictures.example/a/c");
        assert!(target_of(b"file:///c").is_err());
    }

    #[test]
    fn a_location_in_raw_utf_8_is_percent_encoded() {
        assert_eq!(
            target_of("/räv.png?q=ö".as_bytes()).unwrap(),
            "https://pictures.example/r%C3%A4v.png?q=%C3%B6"
        );
        assert_eq!(target_of("//bücher.example/".as_bytes()).unwrap(), "https://xn--bcher-kva.example/");
        assert_eq!(target_of(b"/caf%C3%A9").unwrap(), "https://pictures.example/caf%C3%A9");
    }

    #[test]
    fn a_location_that_is_not_utf_8_keeps_its_bytes() {
        assert_eq!(target_of(b"/caf\xe9.png").unwrap(), "https://pictures.example/caf%E9.png");
    }

    #[test]
    fn redirects_are_followed_up_to_the_limit() {
        let moved = |location: &str| {
            Response::builder().status(302).header(header::LOCATION, location).body(()).unwrap()
        };
        let mut calls = Vec::new();
        let (url, response) = follow::<_, RedirectError>(&web_url("http://a/1"), 2, |url| {
            calls.push(url.as_str().to_owned());
            Ok(if calls.len() < 3 { moved(&format!("/{}", calls.len() + 1)) } else { Response::new(()) })
        })
        .unwrap();
        assert_eq!((url.as_str(), response.status().as_u16()), ("http://a/3", 200));
        assert_eq!(calls, ["http://a/1", "http://a/2", "http://a/3"]);
        let endless = follow::<_, RedirectError>(&web_url("http://a/1"), 2, |_| Ok(moved("/1"))).unwrap_err();
        assert_eq!(endless, RedirectError::TooMany { host: "a".to_owned(), limit: 2 });
    }
}
