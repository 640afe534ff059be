//! Calls to servers on this machine, under host names that resolve as each test says.

mod server;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::NextTimeout;

pub(crate) use server::Server;
use server::{ok, redirect_to};

use super::*;

/// Resolves host names by a function. The function gets the name and the number of earlier look-ups.
#[derive(Debug)]
struct Names(fn(&str, usize) -> Vec<&'static str>, Arc<AtomicUsize>);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let port = uri.port_u16().unwrap_or(80);
        let mut found = self.empty();
        for address in (self.0)(uri.host().unwrap(), self.1.fetch_add(1, Ordering::SeqCst)) {
            found.push(SocketAddr::new(address.parse().unwrap(), port));
        }
        if found.is_empty() { Err(std::io::Error::other("no such name").into()) } else { Ok(found) }
    }
}

const LIMITS: Limits = Limits { image_bytes: 1 << 20, image_time: Duration::from_secs(5) };

fn fetcher(allowed: &str, limits: Limits) -> Fetcher {
    let lookup = Names(
        |host, _| match host {
            "nowhere.test" => vec![],
            "half.test" => vec!["127.0.0.1", "10.0.0.1"],
            _ => vec!["127.0.0.1"],
        },
        Arc::default(),
    );
    Fetcher::with(allowed.parse().unwrap(), RootCerts::WebPki, lookup, limits)
}

/// Fetches with `good.test`, which is this machine, as the only allowed host.
fn fetch(url: &WebUrl) -> Result<Vec<u8>, String> {
    fetcher("good.test", LIMITS).fetch_image(url).map_err(|error| error.to_string())
}

fn refused(url: &str) -> String {
    let fetcher = Fetcher::new(AllowedAddresses::default()).unwrap();
    let url = match url.parse() {
        Ok(url) => url,
        Err(error) => return FetchError::Url(error).to_string(),
    };
    fetcher.fetch_image(&url).unwrap_err().to_string()
}

#[test]
fn a_picture_request_carries_only_the_necessary_headers() {
    let server = Server::answering(&[ok("a picture")]);
    assert_eq!(fetch(&server.url("good.test", "/dog.png?size=1#top")).unwrap(), b"a picture");
    let port = server.address.port();
    let asked = server.asked().remove(0).to_lowercase();
    let version = env!("CARGO_PKG_VERSION");
    let mut lines: Vec<&str> = asked.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "accept-encoding: identity",
            "accept: image/png, image/jpeg, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.1",
            "get /dog.png?size=1 http/1.1",
            &format!("host: good.test:{port}"),
            &format!("user-agent: stablehand/{version}"),
        ]
    );
}

fn not_public(host: &str) -> String {
    FetchError::NotPublic { host: host.to_owned() }.to_string()
}

#[test]
fn a_private_address_is_refused_in_every_spelling() {
    let server = Server::answering(&[ok("secret")]);
    let port = server.address.port();
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[::127.0.0.1]",
        "localhost",
        "LOCALHOST",
        "%6cocalhost",
    ] {
        let error = refused(&format!("http://{host}:{port}/"));
        assert!(error.contains(" is not public; the server's operator can allow it"), "{host}: {error}");
    }
    assert_eq!(refused(&format!("http://127.1:{port}/")), not_public("127.0.0.1"));
    assert_eq!(refused("http://169.254.169.254/latest"), not_public("169.254.169.254"));
    assert_eq!(refused("ftp://a.test/"), "it should be an http or https URL");
    assert_eq!(refused("http://me@a.test/"), "it should be a URL without a user or a password");
    assert!(server.asked().is_empty());
}

#[test]
fn a_name_with_any_private_address_is_refused() {
    let server = Server::answering(&[ok("secret")]);
    assert_eq!(fetch(&server.url("inside.test", "/")).unwrap_err(), not_public("inside.test"),);
    let half = fetcher("127.0.0.0/8", LIMITS).fetch_image(&server.url("half.test", "/")).unwrap_err();
    assert_eq!(half, FetchError::NotPublic { host: "half.test".to_owned() });
    assert_eq!(fetch(&server.url("nowhere.test", "/")).unwrap_err(), "there is no host nowhere.test");
    assert!(server.asked().is_empty());
}

#[test]
fn a_name_is_looked_up_once_and_only_the_checked_address_is_used() {
    // The first look-up gives an allowed address, the second a refused one, as in a DNS rebinding attack.
    let server = Server::answering(&[ok("as checked")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup =
        Names(|_, times| if times == 0 { vec!["127.0.0.1"] } else { vec!["127.0.0.2"] }, Arc::clone(&asked));
    let allowed = "127.0.0.1".parse().unwrap();
    let fetcher = Fetcher::with(allowed, RootCerts::WebPki, lookup, LIMITS);
    let url = server.url("rebinding.test", "/");
    assert_eq!(fetcher.fetch_image(&url).unwrap(), b"as checked");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // No connection was kept, so the second call looks the name up again and gets the new address.
    assert!(matches!(fetcher.fetch_image(&url), Err(FetchError::NotPublic { .. })));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_redirect_to_an_allowed_address_is_followed() {
    let target = Server::answering(&[ok("moved")]);
    let server = Server::answering(&[redirect_to("/b"), redirect_to(target.url("good.test", "/c").as_str())]);
    assert_eq!(fetch(&server.url("good.test", "/a")).unwrap(), b"moved");
    assert!(server.asked()[1].starts_with("GET /b "));
}

#[test]
fn a_redirect_to_a_refused_url_is_refused() {
    let inside = Server::answering(&[ok("secret")]);
    for (target, error) in [
        (inside.url("inside.test", "/").as_str(), not_public("inside.test").as_str()),
        (inside.url("127.0.0.1", "/").as_str(), not_public("127.0.0.1").as_str()),
        ("http://169.254.169.254/", not_public("169.254.169.254").as_str()),
        ("file:///etc/passwd", "good.test redirects to a URL that should be an http or https URL"),
        (
            "http://me@good.test/",
            "good.test redirects to a URL that should be a URL without a user or a password",
        ),
        (
            "http://good.test:22/",
            "good.test redirects to a URL that should be a URL of port 80, 443 or from 1024 to 65535, not 22",
        ),
    ] {
        let server = Server::answering(&[redirect_to(target)]);
        assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), error);
    }
    assert!(inside.asked().is_empty());
}

#[test]
fn redirects_are_limited() {
    let server = Server::answering(&[redirect_to("/")]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test redirects more than 3 times");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_redirect_in_raw_utf_8_is_followed() {
    let server = Server::answering(&[redirect_to("/räv.png"), ok("a fox")]);
    assert_eq!(fetch(&server.url("good.test", "/u")).unwrap(), b"a fox");
    assert!(server.asked()[1].starts_with("GET /r%C3%A4v.png "));
}

#[test]
fn any_status_but_200_is_an_error() {
    for status in ["404 Not Found", "204 No Content", "206 Partial Content", "300 Multiple", "500 Oh"] {
        let server = Server::answering(&[format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")]);
        let error = fetch(&server.url("good.test", "/")).unwrap_err();
        assert_eq!(error, format!("good.test answered with HTTP {}", &status[..3]));
    }
}

#[test]
fn a_picture_may_have_exactly_the_limit_in_bytes() {
    let limit = usize::try_from(LIMITS.image_bytes).unwrap();
    let server = Server::answering(&[ok(&"x".repeat(limit))]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap().len(), limit);
    let too_large = "it is larger than 1 MiB";
    let server = Server::answering(&[ok(&"x".repeat(limit + 1))]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), too_large);
    let server = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_owned()]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), too_large);
}

#[test]
fn an_endless_body_stops_at_the_limit() {
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(65536)),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            format!("10000\r\n{}\r\n", "x".repeat(65536)),
        ),
    ] {
        let server = Server::start(move |stream| {
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(piece.as_bytes()).is_ok() {}
        });
        assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "it is larger than 1 MiB");
    }
}

#[test]
fn a_body_shorter_than_its_content_length_is_an_error() {
    let server = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
}

#[test]
fn a_compressed_body_is_not_decompressed() {
    let server =
        Server::answering(&[ok("as it is").replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n")]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap(), b"as it is");
}

#[test]
fn endless_headers_are_an_error() {
    let server = Server::start(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-more: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").is_ok() {}
    });
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
}

#[test]
fn a_slow_server_runs_into_the_deadline() {
    let limits = Limits { image_time: Duration::from_millis(100), ..LIMITS };
    let silent = Server::start(|stream| drop(stream.read(&mut [0])));
    let dripping = Server::start(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    for server in [silent, dripping] {
        let started = Instant::now();
        let error = fetcher("good.test", limits).fetch_image(&server.url("good.test", "/")).unwrap_err();
        assert_eq!(error.to_string(), "good.test did not answer within 100ms");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn all_redirects_share_one_deadline() {
    let limits = Limits { image_time: Duration::from_millis(150), ..LIMITS };
    let server = Server::start(|stream| {
        thread::sleep(Duration::from_millis(70));
        let _ = stream.write_all(redirect_to("/").as_bytes());
    });
    let error = fetcher("good.test", limits).fetch_image(&server.url("good.test", "/")).unwrap_err();
    assert_eq!(error.to_string(), "good.test did not answer within 150ms");
}

#[test]
fn a_server_that_does_not_speak_http_cannot_be_reached() {
    let server = Server::answering(&["SSH-2.0-OpenSSH_9.9\r\n".to_owned()]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
    let url = server.url("good.test", "/").as_str().replace("http:", "https:").parse().unwrap();
    let error = fetch(&url).unwrap_err();
    assert!(!error.contains("127.0.0.1") && error.starts_with("good.test "), "{error}");
}

#[test]
fn a_webhook_is_posted_once_and_follows_no_redirect() {
    let server = Server::answering(&[redirect_to("/elsewhere"), ok("")]);
    let url = server.url("good.test", "/hook");
    let fetcher = fetcher("good.test", LIMITS);
    let post = || fetcher.post_json(&url, &[("webhook-id", "7")], br#"{"a": 1}"#, Duration::from_secs(5));
    assert_eq!(post(), Ok(302));
    assert_eq!(post(), Ok(200));
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    for part in
        ["POST /hook HTTP/1.1\r\n", "webhook-id: 7\r\n", "content-type: application/json\r\n", "{\"a\": 1}"]
    {
        assert!(asked[0].contains(part), "{part} is not in {}", asked[0]);
    }
    assert!(fetcher.post_json(&server.url("inside.test", "/"), &[], b"{}", Duration::from_secs(5)).is_err());
    assert_eq!(server.asked().len(), 2);
}
