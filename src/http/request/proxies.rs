//! What reverse proxies say about the clients before them: their addresses, and the addresses that they asked for.
//!
//! Anybody can write such headers. They count only on a connection from a proxy that the operator trusts.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use actix_web::http::header::{FORWARDED, HOST, HeaderMap};
use actix_web::http::uri::Authority;
use actix_web::{HttpRequest, web};
use ipnet::IpNet;

use super::Api;

/// The networks of the trusted proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// No prefix is longer.
const LONGEST_PREFIX: usize = 256;

/// Proxies on this machine.
impl Default for TrustedProxies {
    fn default() -> Self {
        let v4 = IpNet::new_assert([127, 0, 0, 0].into(), 8);
        Self(vec![v4, IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST))])
    }
}

/// Reads `none`, or networks and addresses separated by commas.
impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "none" {
            return Ok(Self(Vec::new()));
        }
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let networks = names.map(|name| {
            let network = name.parse().or_else(|_| name.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                format!("{name} is no network: write none, or networks such as 127.0.0.0/8,10.1.2.3")
            })
        });
        networks.collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The address that a request comes from: behind trusted proxies, what the first of them says.
pub(in crate::http) fn client_address(request: &HttpRequest) -> IpAddr {
    let peer = request.peer_addr().map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical());
    match trusted(request) {
        Some(trusted) => behind(trusted, peer, request.headers()),
        None => peer,
    }
}

/// Each proxy adds the address that it was called from, so the last ones are the proxies'.
fn behind(trusted: &TrustedProxies, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer;
    let mut hops = forwarded_for(headers).into_iter().rev();
    while trusted.contains(client) {
        client = match hops.next() {
            None => break,
            // A proxy that does not say who called it: nobody's address, and not this machine's.
            Some(None) => return Ipv6Addr::UNSPECIFIED.into(),
            // Only a proxy on this machine can speak for it.
            Some(Some(hop)) if hop.is_loopback() && !peer.is_loopback() => break,
            Some(Some(hop)) => hop,
        };
    }
    client
}

/// The start of a URL under which the client reaches this server, such as `https://pictures.example/draw`. None if its request
/// does not say.
pub(super) fn base_url(request: &HttpRequest) -> Option<String> {
    let headers = request.headers();
    if !comes_from_a_proxy(request) {
        return Some(format!("http://{}", only(headers, HOST.as_str()).and_then(plain_host)?));
    }
    let host = forwarded_host(headers).or_else(|| only(headers, HOST.as_str()).and_then(plain_host))?;
    let scheme = last(headers, "x-forwarded-proto").or_else(|| parameter(headers, "proto"));
    let scheme =
        if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { "https" } else { "http" };
    let prefix = last(headers, "x-forwarded-prefix").and_then(plain_prefix).unwrap_or_default();
    Some(format!("{scheme}://{host}{prefix}"))
}

/// The host that the client asked a trusted proxy for.
pub(super) fn public_host(request: &HttpRequest) -> Option<String> {
    comes_from_a_proxy(request).then(|| forwarded_host(request.headers())).flatten()
}

fn comes_from_a_proxy(request: &HttpRequest) -> bool {
    let peer = request.peer_addr().map(|peer| peer.ip().to_canonical());
    peer.zip(trusted(request)).is_some_and(|(peer, trusted)| trusted.contains(peer))
}

fn trusted(request: &HttpRequest) -> Option<&TrustedProxies> {
    Some(&request.app_data::<web::Data<Api>>()?.settings.trusted_proxies)
}

/// The addresses in the order in which they were added. None is one that cannot be read.
fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let listed = list(headers, "x-forwarded-for");
    if !listed.is_empty() {
        return listed.into_iter().map(hop).collect();
    }
    let elements = list(headers, FORWARDED.as_str());
    elements.into_iter().map(|element| value_in(element, "for").and_then(hop)).collect()
}

fn forwarded_host(headers: &HeaderMap) -> Option<String> {
    last(headers, "x-forwarded-host").or_else(|| parameter(headers, "host")).and_then(plain_host)
}

/// An address, with or without a port.
fn hop(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The elements of all headers of this name.
fn list<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).map(|value| value.to_str().unwrap_or_default());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|element| !element.is_empty()).collect()
}

/// The last element: the nearest proxy wrote it.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    list(headers, name).pop()
}

/// A header that may stand once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// A parameter of the last element of `Forwarded` (RFC 7239).
fn parameter<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    value_in(last(headers, FORWARDED.as_str())?, name)
}

fn value_in<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(known, _)| known.trim().eq_ignore_ascii_case(name))?;
    Some(value.trim().trim_matches('"'))
}

/// Only a host and perhaps a port. It goes into URLs that others open, so anything else is not repeated.
fn plain_host(host: &str) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    let sound = !host.is_empty() && host.len() <= 255 && host.chars().all(plain);
    let authority: Authority = host.parse().ok().filter(|_| sound)?;
    (!authority.host().is_empty()).then(|| authority.to_string())
}

/// A path such as `/draw`, without a slash at its end.
fn plain_prefix(prefix: &str) -> Option<&str> {
    let prefix = prefix.trim_end_matches('/');
    let mut parts = prefix.strip_prefix('/')?.split('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '~');
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    (prefix.len() <= LONGEST_PREFIX && parts.all(is_plain)).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn seen(trusted: &str, peer: &str, headers: &[(&str, &str)]) -> String {
        let request =
            headers.iter().fold(TestRequest::default(), |request, header| request.append_header(*header));
        let request = request.peer_addr(peer.parse().unwrap()).to_http_request();
        let trusted: TrustedProxies = trusted.parse().unwrap();
        let peer = request.peer_addr().unwrap().ip().to_canonical();
        behind(&trusted, peer, request.headers()).to_string()
    }

    const LOOPBACK: &str = "127.0.0.0/8,::1";

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        let xff = |value| [("X-Forwarded-For", value)];
        for (trusted, peer, headers, client) in [
            (LOOPBACK, "203.0.113.7:1", &xff("198.51.100.1")[..], "203.0.113.7"),
            (LOOPBACK, "127.0.0.1:1", &[], "127.0.0.1"),
            (LOOPBACK, "127.0.0.1:1", &xff("10.0.0.1, 198.51.100.1"), "198.51.100.1"),
            (LOOPBACK, "[::1]:1", &xff("[2001:db8::7]:443"), "2001:db8::7"),
            (LOOPBACK, "[::ffff:127.0.0.1]:1", &xff("::ffff:198.51.100.1"), "198.51.100.1"),
            (LOOPBACK, "127.0.0.1:1", &xff("whoever"), "::"),
            // A client's own words stand before what the proxies add.
            ("10.0.0.0/8", "10.0.0.2:1", &xff("127.0.0.1, 198.51.100.1:99, 10.0.0.9"), "198.51.100.1"),
            ("10.0.0.0/8", "10.0.0.2:1", &xff("198.51.100.1, ?, 10.0.0.9"), "::"),
            ("10.0.0.0/8", "10.0.0.2:1", &xff("127.0.0.1"), "10.0.0.2"),
            (LOOPBACK, "127.0.0.1:1", &xff("127.0.0.1"), "127.0.0.1"),
            ("10.0.0.0/8", "10.0.0.2:1", &xff("10.0.0.8, 10.0.0.9"), "10.0.0.8"),
            ("none", "127.0.0.1:1", &xff("198.51.100.1"), "127.0.0.1"),
        ] {
            assert_eq!(seen(trusted, peer, headers), client, "{peer} {headers:?}");
        }
        let forwarded =
            [("Forwarded", "for=192.0.2.60;proto=http, For=\"[2001:db8::7]:80\";by=203.0.113.43")];
        assert_eq!(seen(LOOPBACK, "127.0.0.1:1", &forwarded), "2001:db8::7");
        let lines = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "192.0.2.2")];
        assert_eq!(seen(LOOPBACK, "127.0.0.1:1", &lines), "192.0.2.2");
        assert_eq!(seen(LOOPBACK, "127.0.0.1:1", &[lines[0], forwarded[0]]), "192.0.2.1");
    }

    #[test]
    fn urls_repeat_only_a_plain_host_and_prefix() {
        for good in ["localhost:8000", "pictures.example", "[::1]:80", "10.0.0.1"] {
            assert_eq!(plain_host(good).as_deref(), Some(good));
        }
        for bad in
            ["", "a b", "user@evil.example", "evil.example/path", "a?b", "a#b", "<script>", ":80", "a:b:c"]
        {
            assert_eq!(plain_host(bad), None, "{bad}");
        }
        assert_eq!(plain_host(&"a".repeat(300)), None);
        for (prefix, plain) in [("/draw", "/draw"), ("/a/b-c/", "/a/b-c")] {
            assert_eq!(plain_prefix(prefix), Some(plain));
        }
        for bad in ["", "/", "draw", "//evil.example", "/a//b", "/../a", "/a?b", "/a b", "/<script>"] {
            assert_eq!(plain_prefix(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_network_that_cannot_be_read_is_named() {
        let error = "10.0.0.0/8, proxy".parse::<TrustedProxies>().unwrap_err();
        assert_eq!(error, "proxy is no network: write none, or networks such as 127.0.0.0/8,10.1.2.3");
        assert_eq!(LOOPBACK.parse(), Ok(TrustedProxies::default()));
    }
}
