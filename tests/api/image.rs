//! Image URLs: signatures, expiry and caching.

use serde_json::json;

use crate::client::{Request, Response};
use crate::helpers::{TestApp, keyed, prompt};

/// The URL of a finished picture, without scheme and host.
fn drawn(app: &TestApp) -> String {
    let body = app.post("/v2/stable-diffusion-v1/runsync?wait=90000", prompt("a dog")).json();
    let url = body["output"][0]["image"].as_str().unwrap().to_owned();
    let base = format!("http://127.0.0.1:{}", app.port);
    url.strip_prefix(&base).unwrap_or_else(|| panic!("{url}")).to_owned()
}

fn get(app: &TestApp, target: &str) -> Response {
    Request::new("GET", target).send(app.port)
}

#[test]
fn a_picture_is_served_without_a_key() {
    let app = TestApp::start();
    let target = drawn(&app);
    for target in [target.clone(), target.replacen("/v2/", "/v1/", 1)] {
        let response = get(&app, &target);
        assert_eq!(response.status, 200);
        assert_eq!(response.body, b"\x89PNG scripted");
        assert_eq!(response.header("content-type"), Some("image/png"));
        assert_eq!(response.header("content-length"), Some("13"));
        assert_eq!(response.header("cache-control"), Some("private, max-age=300"));
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn head_gives_the_size_without_a_body() {
    let app = TestApp::start();
    let response = Request::new("HEAD", &drawn(&app)).send(app.port);
    assert_eq!((response.status, response.header("content-length")), (200, Some("13")));
    assert_eq!(response.body, b"");
}

#[test]
fn a_cached_picture_is_not_sent_again() {
    let app = TestApp::start();
    let target = drawn(&app);
    let etag = get(&app, &target).header("etag").unwrap().to_owned();
    let response = Request::new("GET", &target).header("If-None-Match", &etag).send(app.port);
    assert_eq!((response.status, response.body.len()), (304, 0));
}

#[test]
fn a_changed_url_is_forbidden() {
    let app = TestApp::start();
    let target = drawn(&app);
    let (path, query) = target.split_once('?').unwrap();
    let (expires, signature) = query.split_once('&').unwrap();
    let later = format!("expires={}", expires.strip_prefix("expires=").unwrap().parse::<i64>().unwrap() + 1);
    for altered in [
        path.to_owned(),
        format!("{path}?{expires}"),
        format!("{path}?{signature}"),
        format!("{path}?{later}&{signature}"),
        format!("{path}?expires=x&{signature}"),
        format!("{path}?{expires}&{signature}A"),
        format!("{path}?{expires}&signature=%ff"),
        target.replace("/0.png", "/1.png"),
        target.replace("/0.png", "/00.png"),
        target.replace("/0.png", "/+0.png"),
        target.replace("/0.png", "/99999999999.png"),
        target.replace("/sync-", "/"),
    ] {
        let response = get(&app, &altered);
        assert_eq!(response.status, 403, "{altered}");
        assert_eq!(response.error(), "The signature of this URL is not valid.");
    }
    assert_eq!(get(&app, &target.replace("stable-diffusion-v1", "another")).status, 404);
}

#[test]
fn an_expired_url_is_404() {
    let app = TestApp::start();
    let target = drawn(&app);
    app.advance_ms(299_000);
    assert_eq!(get(&app, &target).status, 200);
    app.advance_ms(1_000);
    let response = get(&app, &target);
    assert_eq!(response.status, 404);
    assert_eq!(response.error(), "No such image: it never existed, or it has been deleted.");
}

#[test]
fn a_url_works_only_on_its_server_and_survives_a_restart() {
    let mut app = TestApp::start();
    let other = TestApp::start();
    let target = drawn(&app);
    assert_eq!(get(&other, &target).status, 403);
    app.restart();
    assert_eq!(get(&app, &target).status, 200);
}

#[test]
fn the_public_url_wins_over_the_host_header() {
    let app = TestApp::start();
    let id = app.post("/v2/stable-diffusion-v1/runsync?wait=90000", prompt("a dog")).json()["id"].clone();
    let target = format!("/v2/stable-diffusion-v1/status/{}", id.as_str().unwrap());
    let image_under = |app: &TestApp, host: &str| {
        let request = keyed("GET", &target).header("Host", host);
        request.send(app.port).json()["output"][0]["image"].as_str().unwrap().to_owned()
    };
    assert!(image_under(&app, "pictures.example:81").starts_with("http://pictures.example:81/v2/"));
    assert!(image_under(&app, "a@b.example").starts_with(&format!("http://127.0.0.1:{}/v2/", app.port)));

    let public = TestApp::with(|config| config.public_url = Some("https://p.example/sd".to_owned()));
    let body = public.post("/v2/stable-diffusion-v1/runsync", json!({"input": {"prompt": "a dog"}})).json();
    assert!(body["output"][0]["image"].as_str().unwrap().starts_with("https://p.example/sd/v2/"), "{body}");
}
