//! Rate limits.

use stablehand::config::{Access, Config};
use stablehand::http::RateLimits;

use crate::client::{Request, Response};
use crate::helpers::{TestApp, keyed, prompt};

fn limited(limits: &str) -> impl FnOnce(&mut Config) {
    let rate_limits: RateLimits = limits.parse().unwrap();
    move |config: &mut Config| config.http.rate_limits = rate_limits
}

/// The seconds of `Retry-After` and the error of a 429 response.
fn refused(response: &Response) -> (u64, String) {
    assert_eq!(response.status, 429, "{response:?}");
    (response.header("retry-after").unwrap().parse().unwrap(), response.error())
}

#[test]
fn a_key_over_its_limit_gets_429_with_retry_after() {
    let app = TestApp::start();
    let purge = |key: &str| {
        Request::new("POST", "/v2/stable-diffusion-v1/purge-queue")
            .header("Authorization", key)
            .send(app.port)
    };
    assert_eq!((purge("first-key").status, purge("first-key").status), (200, 200));
    let (seconds, error) = refused(&purge("Bearer first-key"));
    assert!((1..=5).contains(&seconds), "{seconds}");
    let wait =
        format!("Too many purge-queue requests: the limit is 2 in 10 seconds; try again in {seconds} s.");
    assert_eq!(error, wait);
    assert_eq!(purge("second-key").status, 200);
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").status, 200);
}

#[test]
fn what_needs_no_key_has_a_limit_for_each_address() {
    let app = TestApp::with(limited("keyless=3"));
    let ask = |target: &str| Request::new("GET", target).send(app.port);
    for target in ["/", "/docs", "/openapi.json"] {
        assert_eq!(ask(target).status, 200, "{target}");
    }
    let (seconds, error) = refused(&ask("/docs/input"));
    assert!(
        error.starts_with("Too many keyless requests: the limit is 3 in 10 seconds;"),
        "{error} {seconds}"
    );
    for target in ["/live", "/docs/nothing/here"] {
        assert_ne!(ask(target).status, 429, "{target}");
    }
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").status, 200);
}

#[test]
fn both_versions_of_the_path_count_together() {
    let app = TestApp::with(limited("status=2"));
    let id = app.submit(&prompt("a dog"));
    assert_eq!(app.get(&format!("/v1/stable-diffusion-v1/status/{id}")).status, 200);
    assert_eq!(app.post_text(&format!("/v2/stable-diffusion-v1/status/{id}"), "").status, 200);
    refused(&app.get(&format!("/v1/stable-diffusion-v1/status/{id}")));
}

#[test]
fn a_waiting_request_counts_until_it_is_answered() {
    let app = TestApp::with(limited("runsync=100/1"));
    app.script.hold();
    let port = app.port;
    let waiting = std::thread::spawn(move || {
        keyed("POST", "/v2/stable-diffusion-v1/runsync").body(prompt("a dog").to_string()).send(port)
    });
    app.script.wait_for_step(1);
    let second = || app.post("/v2/stable-diffusion-v1/runsync", prompt("a cat"));
    let (seconds, error) = refused(&second());
    assert_eq!(seconds, 1);
    assert_eq!(
        error,
        "Too many runsync requests at once: the limit is 1; try again when one has been answered."
    );
    app.script.open();
    assert_eq!(waiting.join().unwrap().status, 200);
    assert_eq!(second().status, 200);
}

#[test]
fn without_authentication_limits_are_per_address() {
    let app = TestApp::with(|config| {
        config.access = Access::Everybody;
        limited("health=1")(config);
    });
    let health = |key: &str| {
        Request::new("GET", "/v2/stable-diffusion-v1/health").header("Authorization", key).send(app.port)
    };
    assert_eq!(health("one").status, 200);
    refused(&health("another"));
}

#[test]
fn an_address_that_guesses_keys_is_blocked_and_others_are_not() {
    let app = TestApp::with(limited("unauthorized=1"));
    let health = |key: &str, from: &str| {
        Request::new("GET", "/v2/stable-diffusion-v1/health")
            .header("Authorization", key)
            .header("X-Forwarded-For", from)
            .send(app.port)
    };
    assert_eq!(health("a-guess", "203.0.113.7").status, 401);
    let (seconds, error) = refused(&health("a-guess", "203.0.113.7"));
    assert_eq!(seconds, 10);
    assert_eq!(error, "Too many wrong API keys from this address: try again in 10 s.");
    // Even a valid key is refused now.
    refused(&health("first-key", "203.0.113.7"));
    assert_eq!(health("first-key", "203.0.113.8").status, 200);
    // An address whose key was right is never blocked, and neither is this machine.
    for _ in 0..5 {
        assert_eq!(health("a-guess", "203.0.113.8").status, 401);
        assert_eq!(health("a-guess", "127.0.0.1").status, 401);
    }
}

#[test]
fn requests_without_a_key_block_nobody() {
    // Every page that a user visits can make the user's browser send these.
    let app = TestApp::with(limited("unauthorized=3"));
    let health = |request: Request| request.header("X-Forwarded-For", "203.0.113.7").send(app.port).status;
    for _ in 0..9 {
        assert_eq!(health(Request::new("GET", "/v2/stable-diffusion-v1/health")), 401);
        assert_eq!(health(Request::new("GET", "/v1/models")), 401);
    }
    assert_eq!(health(keyed("GET", "/v2/stable-diffusion-v1/health")), 200);
}

#[test]
fn limits_can_be_turned_off() {
    let app = TestApp::with(limited("off"));
    for _ in 0..5 {
        assert_eq!(app.post_text("/v2/stable-diffusion-v1/purge-queue", "").status, 200);
    }
}
