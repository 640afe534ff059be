//! Readers for the values of settings. Each one parses the text of a flag, or says what the value should be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use actix_web::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytesize::ByteSize;
use url::Url;

/// The smallest memory budget: no model fits into less.
const SMALLEST_BUDGET: ByteSize = ByteSize::mib(16);
/// Room for the largest body of a request.
const LARGEST_BODY: ByteSize = ByteSize::mib(32);

/// The address and port of a listener.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let loopback = || {
        let port = text.strip_prefix("localhost:")?.parse().ok()?;
        Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    };
    text.parse()
        .ok()
        .or_else(loopback)
        .ok_or_else(|| "it should be an address and port, such as 127.0.0.1:8000".to_owned())
}

/// The address of the agent. A port alone is one that only this machine reaches.
pub(super) fn agent_address(text: &str) -> Result<SocketAddr, String> {
    let on_loopback = text.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port));
    on_loopback.map_or_else(|| address(text), Ok).map_err(|_| {
        "it should be a port of this machine, or an address and port, such as 9101 or 10.0.0.1:9101"
            .to_owned()
    })
}

/// Base64 of 32 bytes, in either alphabet and with or without padding.
pub(super) fn signing_key(text: &str) -> Result<[u8; 32], String> {
    let text = text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    // The key itself belongs into no error.
    bytes.ok_or_else(|| "it should be the base64 of 32 random bytes".to_owned())
}

pub(super) fn public_url(text: &str) -> Result<String, String> {
    let base = text.trim_end_matches('/');
    let uri: Uri =
        base.parse().map_err(|_| "it should be a URL such as https://pictures.example".to_owned())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it should begin with http:// or https://".to_owned());
    }
    if uri.query().is_some() || text.contains(['#', '@', '?']) {
        return Err("it should have no user, query or fragment".to_owned());
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err("it should name a host".to_owned());
    }
    Ok(base.to_owned())
}

/// Where OpenTelemetry's collectors take traces.
const TRACES: &str = "/v1/traces";

/// The address at which a collector takes traces, from its own or from the collector's.
pub(super) fn collector(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|_| "it should be a URL such as http://127.0.0.1:4318".to_owned())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it should begin with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains(['?', '#']) {
        let keys = "a collector's key belongs into OTEL_EXPORTER_OTLP_HEADERS";
        return Err(format!("it should have no user, query or fragment; {keys}"));
    }
    let text = text.trim_end_matches('/');
    Ok(if text.ends_with(TRACES) { text.to_owned() } else { format!("{text}{TRACES}") })
}

/// Reads the address of a server for `--url`. Its path may be that of the tools or not.
pub fn server_url(text: &str) -> Result<String, String> {
    let url = Url::parse(text).map_err(|_| format!("{text} is not a URL such as http://127.0.0.1:8000"))?;
    match url.scheme() {
        "http" | "https" => {}
        other => return Err(format!("its scheme is {other}; it must be http or https")),
    }
    let text = text.trim_end_matches('/');
    Ok(text.strip_suffix("/mcp").unwrap_or(text).to_owned())
}

pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let uri: Uri =
        text.parse().map_err(|_| "it should be an origin such as https://gallery.example".to_owned())?;
    let base =
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty());
    // Browsers send an origin in lower case, with nothing after host and port.
    if !base
        || text.contains(['@', '?', '#'])
        || text.matches('/').count() != 2
        || text != text.to_lowercase()
    {
        return Err(
            "it should be an origin in lower case such as https://gallery.example, without a path".to_owned()
        );
    }
    Ok(text.to_owned())
}

pub(super) fn host(text: &str) -> Result<String, String> {
    let url = Url::parse(&format!("http://{text}")).ok();
    let name = url.as_ref().and_then(Url::host_str);
    match name.filter(|name| *name == text) {
        Some(name) => Ok(name.to_owned()),
        None => Err("it should be a host name in lower case such as draw.example, without a port".to_owned()),
    }
}

/// A size in bytes, as people write it.
pub fn size(text: &str) -> Result<u64, String> {
    let size: Result<ByteSize, _> = text.parse();
    size.map(|size| size.as_u64())
        .map_err(|_| "it should be a size such as 12GiB, 800MB or 1000000".to_owned())
}

pub(super) fn retention(text: &str) -> Result<Duration, String> {
    time_within(text, Duration::from_secs(1), Duration::from_hours(30 * 24))
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    time_within(text, Duration::from_millis(100), Duration::from_hours(1))
}

pub(super) fn grace(text: &str) -> Result<Duration, String> {
    time_within(text, Duration::ZERO, Duration::from_hours(1))
}

pub(super) fn unload_after(text: &str) -> Result<Duration, String> {
    time_within(text, Duration::from_secs(1), Duration::from_hours(30 * 24))
}

pub(super) fn budget(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < SMALLEST_BUDGET.as_u64() => Err(format!("it should be at least {SMALLEST_BUDGET}")),
        bytes => Ok(bytes),
    }
}

/// The largest request must have a place in an empty queue.
pub(super) fn queue_bytes(text: &str) -> Result<u64, String> {
    at_least(LARGEST_BODY, text)
}

/// The largest body must fit.
pub(super) fn body_memory(text: &str) -> Result<u64, String> {
    at_least(LARGEST_BODY, text)
}

fn at_least(smallest: ByteSize, text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < smallest.as_u64() => Err(format!("it should be at least {smallest}")),
        bytes => Ok(bytes),
    }
}

/// A time, as people write it.
pub fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "it should be a time such as 30m, 90s or 1h 30m".to_owned())
}

fn time_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let time = time(text)?;
    if (min..=max).contains(&time) {
        return Ok(time);
    }
    let (min, max) = (humantime::format_duration(min), humantime::format_duration(max));
    Err(format!("it should be from {min} to {max}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        for (text, address) in [
            ("9101", "127.0.0.1:9101"),
            ("0.0.0.0:9101", "0.0.0.0:9101"),
            ("localhost:9101", "127.0.0.1:9101"),
        ] {
            assert_eq!(agent_address(text).map(|found| found.to_string()).as_deref(), Ok(address));
        }
        for text in ["", "65536", ":9101", "10.0.0.1"] {
            assert!(agent_address(text).unwrap_err().contains("such as 9101"), "{text}");
        }
    }

    #[test]
    fn a_signing_key_is_read_as_openssl_and_the_data_folder_write_it() {
        let padded = "+/+/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let key = signing_key(padded).unwrap();
        assert_eq!(key[..3], [0xfb, 0xff, 0xbf]);
        assert_eq!(signing_key("-_-_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Ok(key));
        for text in ["", "short", &"A".repeat(44), "!".repeat(43).as_str()] {
            assert_eq!(signing_key(text), Err("it should be the base64 of 32 random bytes".to_owned()));
        }
    }

    #[test]
    fn a_collector_is_named_by_its_own_address_or_by_that_for_traces() {
        for text in ["http://127.0.0.1:4318", "http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"] {
            assert_eq!(collector(text).as_deref(), Ok("http://127.0.0.1:4318/v1/traces"), "{text}");
        }
        assert_eq!(collector("https://a.example/otlp").as_deref(), Ok("https://a.example/otlp/v1/traces"));
        for text in [
            "127.0.0.1:4318",
            "grpc://a.example:4317",
            "http://me:key@a.example",
            "http://a.example?key=1",
            "",
        ] {
            assert!(collector(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_servers_address_is_read_with_and_without_the_path() {
        for text in [
            "http://127.0.0.1:8000",
            "http://127.0.0.1:8000/",
            "http://127.0.0.1:8000/mcp",
            "http://127.0.0.1:8000/mcp/",
        ] {
            assert_eq!(server_url(text).as_deref(), Ok("http://127.0.0.1:8000"), "{text}");
        }
        assert_eq!(server_url("https://a.example/draw").as_deref(), Ok("https://a.example/draw"));
        assert!(server_url("127.0.0.1").is_err() && server_url("ftp://a.example").is_err());
    }
}
