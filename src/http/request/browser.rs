//! Requests without a key, where none is needed: they may come from a program or from a page of this server, but not from a
//! page of another site.
//!
//! A browser sends what any page tells it to, also to this machine. It says where a request comes from
//! (`Sec-Fetch-Site`, `Origin`), and a page cannot change that. Against a name of the attacker's that suddenly means this
//! machine (DNS rebinding), only the names that are ours are served.

use std::net::IpAddr;

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderValue, ORIGIN};
use url::Url;

use super::{Api, ApiError, HttpSettings, proxies};

/// Names that only the owner of a network gives: no stranger can point one of them at this machine.
const LOCAL_ENDINGS: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// Refuses a request that needs no key if a browser sent it for another site.
pub(super) fn check(request: &HttpRequest, api: &Api) -> Result<(), ApiError> {
    let public = api.public_url.as_deref().and_then(|url| Url::parse(url).ok());
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    // A page may write what a proxy writes, so the name that the request came to is checked too.
    let named = proxies::public_host(request);
    let mut hosts = host.into_iter().chain(named.as_deref());
    if !hosts.all(|host| is_ours(host, &api.settings, public.as_ref())) {
        return Err(ApiError::UnknownHost);
    }
    check_site(request, api)
}

/// Refuses a request that a page of another site sent, whatever key it has.
pub(in crate::http) fn check_site(request: &HttpRequest, api: &Api) -> Result<(), ApiError> {
    let public = api.public_url.as_deref().and_then(|url| Url::parse(url).ok());
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let named = proxies::public_host(request);
    match is_from_another_site(request, &api.settings, named.as_deref().or(host), public.as_ref()) {
        true => Err(ApiError::AnotherSite),
        false => Ok(()),
    }
}

fn is_ours(host: &str, settings: &HttpSettings, public: Option<&Url>) -> bool {
    // As in a URL: what is behind the last colon is a port, and IPv6 addresses have brackets.
    let Ok(url) = Url::parse(&format!("http://{host}")) else { return false };
    let Some(name) = url.host_str() else { return false };
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    let is_local = !name.contains('.') || LOCAL_ENDINGS.iter().any(|ending| name.ends_with(ending));
    let is_configured =
        settings.hosts.iter().any(|known| known == name) || public.and_then(Url::host_str) == Some(name);
    is_address || is_local || is_configured
}

fn is_from_another_site(
    request: &HttpRequest,
    settings: &HttpSettings,
    host: Option<&str>,
    public: Option<&Url>,
) -> bool {
    let origin = request.headers().get(ORIGIN);
    let is_allowed = |origin: &HeaderValue| {
        let allowed = &settings.cors_origins;
        allowed.iter().any(|known| known == "*" || known.as_bytes() == origin.as_bytes())
    };
    if settings.cors_origins.iter().any(|known| known == "*") || origin.is_some_and(is_allowed) {
        return false;
    }
    match request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes) {
        // `none` is an address that the user typed.
        Some(b"same-origin" | b"none") => false,
        Some(_) => true,
        None => {
            let origin = origin.map(|origin| origin.to_str().unwrap_or_default());
            origin.is_some_and(|origin| !is_own_origin(origin, host, public))
        }
    }
}

/// Older browsers send no `Sec-Fetch-Site`, but an `Origin`.
fn is_own_origin(origin: &str, host: Option<&str>, public: Option<&Url>) -> bool {
    let same_host = ["http://", "https://"].iter().any(|scheme| origin.strip_prefix(scheme) == host);
    same_host || public.is_some_and(|public| public.origin().ascii_serialization() == origin)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_names_that_no_stranger_can_give_are_ours() {
        let settings = HttpSettings { hosts: vec!["draw.example".to_owned()], ..HttpSettings::default() };
        let public = Url::parse("https://pictures.example/prefix").ok();
        let is_ours = |host| is_ours(host, &settings, public.as_ref());
        for host in [
            "127.0.0.1:8000",
            "[::1]:8000",
            "192.168.1.7",
            "localhost:8000",
            "LOCALHOST",
            "stablehand",
            "mypc.local:80",
            "draw.example:443",
            "pictures.example",
        ] {
            assert!(is_ours(host), "{host}");
        }
        for host in [
            "rebound.evil.example:8000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "a b",
            "evil.example@localhost.evil.example",
        ] {
            assert!(!is_ours(host), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_told_from_programs_and_own_pages() {
        let settings =
            HttpSettings { cors_origins: vec!["https://a.example".to_owned()], ..HttpSettings::default() };
        let foreign = |headers: &[(&str, &str)]| {
            let request =
                headers.iter().fold(TestRequest::default(), |request, header| request.insert_header(*header));
            is_from_another_site(&request.to_http_request(), &settings, Some("localhost:8000"), None)
        };
        assert!(!foreign(&[]));
        for site in ["same-origin", "none"] {
            assert!(!foreign(&[("Sec-Fetch-Site", site)]), "{site}");
        }
        for site in ["cross-site", "same-site", ""] {
            assert!(foreign(&[("Sec-Fetch-Site", site)]), "{site}");
            assert!(!foreign(&[("Sec-Fetch-Site", site), ("Origin", "https://a.example")]), "{site}");
        }
        for origin in
            ["https://evil.example", "null", "http://localhost:9000", "http://localhost:8000.evil.example"]
        {
            assert!(foreign(&[("Origin", origin)]), "{origin}");
        }
        for origin in ["http://localhost:8000", "https://a.example"] {
            assert!(!foreign(&[("Origin", origin)]), "{origin}");
        }
    }
}
