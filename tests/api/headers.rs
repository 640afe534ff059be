//! Response headers: request ids, caching, CORS.

use serde_json::json;
use stablehand::config::Access;

use crate::client::{Request, Response};
use crate::helpers::{TestApp, keyed};

const HEALTH: &str = "/v2/stable-diffusion-v1/health";

#[test]
fn every_response_has_a_request_id() {
    let app = TestApp::start();
    let named = |id: &str| keyed("GET", HEALTH).header("X-Request-Id", id).send(app.port);
    assert_eq!(named("order-42").header("x-request-id"), Some("order-42"));
    let own = |response: &Response| response.header("x-request-id").unwrap().to_owned();
    for odd in ["two words", &"a".repeat(65)] {
        assert_eq!(own(&named(odd)).len(), 32);
    }
    let stranger = Request::new("GET", "/nowhere").send(app.port);
    assert_ne!(own(&stranger), own(&named("")));
}

#[test]
fn every_response_forbids_caching_and_content_sniffing() {
    let app = TestApp::start();
    for response in [
        app.get(HEALTH),
        app.get("/nowhere"),
        Request::new("GET", HEALTH).send(app.port),
        Request::new("PUT", HEALTH).send(app.port),
    ] {
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
    }
}

fn preflight(app: &TestApp, origin: &str) -> Response {
    Request::new("OPTIONS", HEALTH)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type")
        .send(app.port)
}

#[test]
fn only_configured_origins_are_allowed() {
    let app = TestApp::with(|config| config.http.cors_origins = vec!["https://gallery.example".to_owned()]);
    let response = preflight(&app, "https://gallery.example");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://gallery.example"));
    assert_eq!(preflight(&app, "https://evil.example").header("access-control-allow-origin"), None);
    let response = keyed("GET", HEALTH).header("Origin", "https://gallery.example").send(app.port);
    assert_eq!(response.header("access-control-allow-origin"), Some("https://gallery.example"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
}

/// What a page of another site can make a browser send without asking the server first.
#[test]
fn a_page_of_another_site_cannot_use_a_server_that_needs_no_key() {
    let app = TestApp::with(|config| config.access = Access::Everybody);
    let job = app.post("/v2/stable-diffusion-v1/run", json!({"input": {"prompt": "mine"}})).json();
    let status = format!("/v2/stable-diffusion-v1/status/{}", job["id"].as_str().unwrap());
    let refused = |request: Request, error: &str| {
        let response = request.send(app.port);
        assert_eq!((response.status, response.error()), (403, error.to_owned()));
    };
    let another =
        "A page of another site sent this request: allow its origin with --cors-origins, or send an API key.";
    let host = "This server does not know the host name of this request: add it with --hosts, or require an API key.";
    for operation in ["run", "purge-queue"] {
        let target = format!("/v2/stable-diffusion-v1/{operation}");
        let post = || Request::new("POST", &target).header("Content-Type", "text/plain").body("{}");
        refused(post().header("Origin", "https://evil.example"), another);
        refused(post().header("Sec-Fetch-Site", "cross-site"), another);
    }
    let cancel = Request::new("GET", &status.replace("status", "cancel"));
    refused(cancel.header("Sec-Fetch-Site", "cross-site").header("Sec-Fetch-Dest", "image"), another);
    let rebound =
        Request::new("GET", "/v2/stable-diffusion-v1/requests").header("Sec-Fetch-Site", "same-origin");
    refused(rebound.header("Host", "rebound.evil.example:8000"), host);
    // Programs and the server's own pages are served.
    for request in [
        Request::new("GET", &status),
        Request::new("GET", &status).header("Sec-Fetch-Site", "same-origin"),
        Request::new("GET", &status)
            .header("Host", "localhost:8000")
            .header("Origin", "http://localhost:8000"),
    ] {
        let response = request.send(app.port);
        assert!(response.status == 200 && response.json()["status"] != "CANCELLED", "{response:?}");
    }
}

#[test]
fn no_other_origin_is_allowed_by_default() {
    let app = TestApp::start();
    let response = preflight(&app, "https://gallery.example");
    assert_eq!((response.status, response.header("access-control-allow-origin")), (405, None));
    let app = TestApp::with(|config| config.http.cors_origins = vec!["*".to_owned()]);
    let response = preflight(&app, "https://gallery.example");
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("*")));
}
