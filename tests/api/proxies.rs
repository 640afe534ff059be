//! Requests that come through a reverse proxy.

use crate::client::Request;
use crate::helpers::{TestApp, keyed, prompt};

const RUNSYNC: &str = "/v2/stable-diffusion-v1/runsync";

fn image(app: &TestApp, headers: &[(&str, &str)]) -> String {
    let request = keyed("POST", RUNSYNC).body(prompt("a dog").to_string());
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
    request.send(app.port).json()["output"][0]["image"].as_str().unwrap().to_owned()
}

#[test]
fn urls_begin_as_the_client_of_a_trusted_proxy_sees_the_server() {
    let app = TestApp::start();
    let forwarded = [
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "draw.example"),
        ("X-Forwarded-Prefix", "/draw/"),
    ];
    let url = image(&app, &forwarded);
    let path = url.strip_prefix("https://draw.example/draw").unwrap_or_else(|| panic!("{url}"));
    assert_eq!(Request::new("GET", path).send(app.port).status, 200);
    let forwarded = [("Forwarded", "for=192.0.2.1;host=draw.example;proto=https")];
    assert!(image(&app, &forwarded).starts_with("https://draw.example/v2/"));
    let odd =
        [("X-Forwarded-Host", "evil.example/"), ("X-Forwarded-Prefix", "//evil.example"), ("Host", "a:1")];
    assert!(image(&app, &odd).starts_with("http://a:1/v2/"));
}

#[test]
fn headers_of_a_client_that_is_no_proxy_change_nothing() {
    let app = TestApp::with(|config| config.http.trusted_proxies = "10.0.0.0/8".parse().unwrap());
    let forwarded = [("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "draw.example"), ("Host", "a:1")];
    assert!(image(&app, &forwarded).starts_with("http://a:1/v2/"));
}

#[test]
fn limits_count_the_clients_behind_a_proxy_apart() {
    let app = TestApp::with(|config| config.http.rate_limits = "unauthorized=2".parse().unwrap());
    let guess = |client: &str| {
        let request = Request::new("GET", "/v2/stable-diffusion-v1/health").header("Authorization", "wrong");
        request.header("X-Forwarded-For", &format!("127.0.0.1, {client}, 127.0.0.1")).send(app.port).status
    };
    let guesses: Vec<_> = (0..4).map(|_| guess("198.51.100.1")).collect();
    assert_eq!(guesses, [401, 401, 429, 429]);
    assert_eq!(guess("198.51.100.2"), 401);
}

#[test]
fn a_page_cannot_pass_for_a_proxy() {
    let app = TestApp::with(|config| config.access = stablehand::config::Access::Everybody);
    let asked = |host: &str, forwarded: &str| {
        let request = Request::new("GET", "/v2/stable-diffusion-v1/health");
        request.header("Host", host).header("X-Forwarded-Host", forwarded).send(app.port).status
    };
    assert_eq!(asked("localhost", "localhost"), 200);
    assert_eq!(asked("rebound.evil.example", "localhost"), 403);
    assert_eq!(asked("localhost", "rebound.evil.example"), 403);
}
