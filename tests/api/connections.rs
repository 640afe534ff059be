//! Clients that send ahead or hold back.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::{Request, exchange_all};
use crate::helpers::{KEY, TestApp, prompt};

const RUN: &str = "/v2/stable-diffusion-v1/run";
const HEALTH: &str = "/v2/stable-diffusion-v1/health";
const KIB: usize = 1024;

/// A body of exactly this many bytes.
fn body(length: usize) -> Vec<u8> {
    let mut body = prompt("a dog").to_string().into_bytes();
    body.resize(length, b' ');
    body
}

#[test]
fn requests_that_are_sent_ahead_are_all_answered_in_their_order() {
    let app = TestApp::with(|config| {
        config.endpoints[0].workers = 0;
        config.http.rate_limits = stablehand::http::RateLimits::OFF;
    });
    let mut ahead = Vec::new();
    for n in 0..1_000 {
        let close = if n == 999 { "Connection: close\r\n" } else { "" };
        write!(
            ahead,
            "GET {HEALTH} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\nX-Request-Id: {n}\r\n{close}\r\n"
        )
        .unwrap();
    }
    let answers = exchange_all(app.port, &ahead);
    let ids: Vec<usize> =
        answers.lines().filter_map(|line| line.strip_prefix("x-request-id: ")?.parse().ok()).collect();
    assert!(ids.iter().copied().eq(0..1_000), "{ids:?}");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 1_000);
}

#[test]
fn requests_with_bodies_that_are_sent_ahead_are_all_answered() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for length in [60, 3 * KIB, 40 * KIB] {
        let mut ahead = Vec::new();
        for n in 0..6 {
            let close = if n == 5 { "Connection: close\r\n" } else { "" };
            write!(
                ahead,
                "POST {RUN} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\nContent-Length: {length}\r\n{close}\r\n"
            )
            .unwrap();
            ahead.extend(body(length));
        }
        let answers = exchange_all(app.port, &ahead);
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 6, "{length}: {answers}");
        assert_eq!(answers.to_lowercase().matches("connection: close").count(), 1, "{length}: {answers}");
    }
}

#[test]
fn bodies_that_arrive_at_the_same_time_have_a_limit_together() {
    let app = TestApp::with(|config| {
        config.endpoints[0].workers = 0;
        config.http.body_memory = 1 << 20;
        config.http.rate_limits = stablehand::http::RateLimits::OFF;
    });
    let post = |length: usize| Request::new("POST", RUN).header("Authorization", KEY).body(body(length));
    let hold = || {
        let mut held = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        let length = 900 * KIB;
        let start = format!(
            "POST {RUN} HTTP/1.1\r\nHost: a\r\nAuthorization: {KEY}\r\nContent-Length: {length}\r\n\r\n{{"
        );
        held.write_all(start.as_bytes()).unwrap();
        held
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    for request in [post(400 * KIB), post(400 * KIB).chunked()] {
        let refused = loop {
            assert!(Instant::now() < deadline, "nothing is refused");
            let _held = hold();
            let response = request.send(app.port);
            // Otherwise the server has not read the other head yet, or does so no more.
            if response.status != 200 {
                break response;
            }
        };
        assert_eq!(refused.status, 503);
        assert_eq!(refused.error(), "The server receives too many request bodies at once: try again in 2 s.");
        assert_eq!(refused.header("retry-after"), Some("2"));
    }
    assert_eq!(post(16 * KIB).send(app.port).status, 200, "a small body has always room");
    assert_eq!(post(100 * KIB).send(app.port).status, 200);
    while post(400 * KIB).chunked().send(app.port).status != 200 {
        assert!(Instant::now() < deadline, "the memory is not given back");
        std::thread::yield_now();
    }
}
