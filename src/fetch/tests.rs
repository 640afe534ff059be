//! Fetching from servers on this machine that answer by script, under names that resolve as the test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::NextTimeout;

use super::*;

/// A server that answers each connection with the next of its answers (the last one again and again), and
/// remembers what it was asked.
pub(crate) struct Server {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(mut answer: impl FnMut(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                log.lock().unwrap().push(read_request(&mut stream));
                answer(&mut stream);
            }
        });
        Self { address, asked }
    }

    pub fn answering<A: AsRef<[u8]>>(answers: &[A]) -> Self {
        let answers: Vec<_> = answers.iter().map(|answer| answer.as_ref().to_vec()).collect();
        let mut next = 0;
        Self::start(move |stream| {
            let _ = stream.write_all(&answers[next.min(answers.len() - 1)]);
            next += 1;
        })
    }

    fn url(&self, host: &str, path: &str) -> WebUrl {
        format!("http://{host}:{}{path}", self.address.port()).parse().unwrap()
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    while reader.read_line(&mut text).unwrap() > 2 {}
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8_lossy(&body)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect_to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// Resolves a name by rule, which is told how often it was asked before.
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

/// Allowed is `good.test` alone, which is this machine.
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
fn a_picture_is_fetched_with_nothing_of_ours_but_our_name() {
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
            "accept: image/*",
            "get /dog.png?size=1 http/1.1",
            &format!("host: good.test:{port}"),
            &format!("user-agent: stablehand/{version}"),
        ]
    );
}

#[test]
fn an_address_that_is_not_public_is_refused_in_every_spelling() {
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
        assert!(error.ends_with("is not public"), "{host}: {error}");
    }
    assert_eq!(refused(&format!("http://127.1:{port}/")), "the address of 127.0.0.1 is not public");
    assert_eq!(refused("http://169.254.169.254/latest"), "the address of 169.254.169.254 is not public");
    assert_eq!(refused("ftp://a.test/"), "it should be an http or https URL");
    assert_eq!(refused("http://me@a.test/"), "it should be a URL without a user or a password");
    assert!(server.asked().is_empty());
}

#[test]
fn a_name_that_resolves_to_anything_private_is_refused() {
    let server = Server::answering(&[ok("secret")]);
    assert_eq!(
        fetch(&server.url("inside.test", "/")).unwrap_err(),
        "the address of inside.test is not public"
    );
    let half = fetcher("127.0.0.0/8", LIMITS).fetch_image(&server.url("half.test", "/")).unwrap_err();
    assert_eq!(half, FetchError::NotPublic { host: "half.test".to_owned() });
    assert_eq!(fetch(&server.url("nowhere.test", "/")).unwrap_err(), "there is no host nowhere.test");
    assert!(server.asked().is_empty());
}

#[test]
fn a_name_is_asked_for_once_and_what_was_checked_is_connected_to() {
    // First an address that may be reached, then one that may not: as a name server would that rebinds.
    let server = Server::answering(&[ok("as checked")]);
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup =
        Names(|_, times| if times == 0 { vec!["127.0.0.1"] } else { vec!["127.0.0.2"] }, Arc::clone(&asked));
    let allowed = "127.0.0.1".parse().unwrap();
    let fetcher = Fetcher::with(allowed, RootCerts::WebPki, lookup, LIMITS);
    let url = server.url("rebinding.test", "/");
    assert_eq!(fetcher.fetch_image(&url).unwrap(), b"as checked");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // No connection was kept, so the second call asks anew, and sees what the name means now.
    assert!(matches!(fetcher.fetch_image(&url), Err(FetchError::NotPublic { .. })));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_redirect_is_followed_if_its_target_may_be_reached() {
    let target = Server::answering(&[ok("moved")]);
    let server = Server::answering(&[redirect_to("/b"), redirect_to(target.url("good.test", "/c").as_str())]);
    assert_eq!(fetch(&server.url("good.test", "/a")).unwrap(), b"moved");
    assert!(server.asked()[1].starts_with("GET /b "));
}

#[test]
fn a_redirect_to_what_may_not_be_reached_is_refused() {
    let inside = Server::answering(&[ok("secret")]);
    for (target, error) in [
        (inside.url("inside.test", "/").as_str(), "the address of inside.test is not public"),
        (inside.url("127.0.0.1", "/").as_str(), "the address of 127.0.0.1 is not public"),
        ("http://169.254.169.254/", "the address of 169.254.169.254 is not public"),
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
fn redirects_come_to_an_end() {
    let server = Server::answering(&[redirect_to("/")]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test redirects more than 3 times");
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn https_does_not_lead_to_http() {
    let url: WebUrl = "https://good.test/".parse().unwrap();
    let answer = |location| {
        Response::builder().status(302).header("location", location).body(Body::builder().data("")).unwrap()
    };
    let downgrade = redirect(&url, &answer("http://good.test/")).unwrap_err();
    assert_eq!(downgrade.to_string(), "good.test redirects from https to http");
    assert_eq!(redirect(&url, &answer("/b")).unwrap().unwrap().as_str(), "https://good.test/b");
}

#[test]
fn whatever_is_not_ok_is_a_failure() {
    for status in ["404 Not Found", "204 No Content", "206 Partial Content", "300 Multiple", "500 Oh"] {
        let server = Server::answering(&[format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")]);
        let error = fetch(&server.url("good.test", "/")).unwrap_err();
        assert_eq!(error, format!("good.test answered with HTTP {}", &status[..3]));
    }
}

#[test]
fn a_picture_may_be_as_large_as_the_limit_and_no_larger() {
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
fn a_body_without_an_end_is_cut_off_at_the_limit() {
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
fn a_body_shorter_than_promised_is_no_picture() {
    let server = Server::answering(&["HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf".to_owned()]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
}

#[test]
fn compressed_bodies_stay_compressed() {
    let server =
        Server::answering(&[ok("as it is").replace("\r\n\r\n", "\r\ncontent-encoding: gzip\r\n\r\n")]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap(), b"as it is");
}

#[test]
fn headers_without_an_end_are_cut_off() {
    let server = Server::start(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x-more: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").is_ok() {}
    });
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
}

#[test]
fn a_server_that_takes_its_time_is_not_waited_for() {
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
fn redirects_share_one_deadline() {
    let limits = Limits { image_time: Duration::from_millis(150), ..LIMITS };
    let server = Server::start(|stream| {
        thread::sleep(Duration::from_millis(70));
        let _ = stream.write_all(redirect_to("/").as_bytes());
    });
    let error = fetcher("good.test", limits).fetch_image(&server.url("good.test", "/")).unwrap_err();
    assert_eq!(error.to_string(), "good.test did not answer within 150ms");
}

#[test]
fn what_does_not_speak_http_is_said_to_be_out_of_reach() {
    let server = Server::answering(&["SSH-2.0-OpenSSH_9.9\r\n".to_owned()]);
    assert_eq!(fetch(&server.url("good.test", "/")).unwrap_err(), "good.test cannot be reached");
    let url = server.url("good.test", "/").as_str().replace("http:", "https:").parse().unwrap();
    let error = fetch(&url).unwrap_err();
    assert!(!error.contains("127.0.0.1") && error.starts_with("good.test "), "{error}");
}

#[test]
fn a_webhook_gets_its_headers_and_its_body_once() {
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
