use serde_json::json;
use stablehand::http::Surface;

use crate::client::Request;
use crate::helpers::{KEY, TestApp, VERSIONS, prompt};

const UNKNOWN: &str = "c80ffee4-f315-4e25-a146-0f3d98cf024b";

#[test]
fn repeated_slashes_collapse_anywhere() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    for path in [
        format!("//v2/stable-diffusion-v1/status/{id}"),
        format!("/v2//stable-diffusion-v1///status//{id}"),
        format!("/v1/stable-diffusion-v1/status/{id}/"),
        format!("/v1/stable-diffusion-v1//status/{id}//?a=//"),
    ] {
        assert_eq!(app.get(&path).status, 200, "{path}");
    }
}

#[test]
fn unknown_routes_endpoints_and_jobs_are_404_in_one_sentence() {
    let app = TestApp::start();
    for (path, error) in [
        ("/v2/stable-diffusion-v1/dance", "No such route."),
        ("/v3/stable-diffusion-v1/health", "No such route."),
        ("/v2", "No such route."),
        ("/v2/stable-diffusion-v1", "No such route."),
        ("/v2/stable-diffusion-v1/status", "No such route."),
        ("/favicon.ico", "No such route."),
        ("/v2/stable-diffusion-v2/health", "No such endpoint on this server."),
        ("/v2/stable-diffusion-v1%00/health", "No such endpoint on this server."),
    ] {
        let response = app.get(path);
        assert_eq!((response.status, response.error()), (404, error.to_owned()), "{path}");
    }
    for id in [
        UNKNOWN,
        "sync-c80ffee4-f315-4e25-a146-0f3d98cf024b",
        "1",
        "%00",
        "%ff",
        "..%2f..%2fetc%2fpasswd",
        "'--",
    ] {
        for operation in ["status", "status-sync", "cancel"] {
            let response = app.get(&format!("/v2/stable-diffusion-v1/{operation}/{id}"));
            assert_eq!(response.status, 404, "{operation} {id}");
            assert_eq!(response.error(), "No such job: it never existed, or it has been deleted.");
        }
    }
}

#[test]
fn path_traversal_is_refused() {
    let app = TestApp::start();
    for path in [
        "/../../etc/passwd",
        "/v2/stable-diffusion-v1/images/../../../signing-key",
        "/v2/stable-diffusion-v1/images/%2e%2e/0.png",
        "/v2/../v2/stable-diffusion-v1/../../api-key",
        "/%2e%2e/api-key",
        "/v2/%00/%00/%00",
    ] {
        let response = app.get(path);
        assert!(matches!(response.status, 403 | 404), "{path}: {response:?}");
        response.error();
    }
}

#[test]
fn wrong_methods_are_405_and_name_the_right_ones() {
    let app = TestApp::start();
    for version in VERSIONS {
        for (method, path, allowed) in [
            ("GET", "run", "POST"),
            ("GET", "runsync", "POST"),
            ("PUT", "status/1", "GET, HEAD, POST"),
            ("DELETE", "status-sync/1", "GET, HEAD, POST"),
            ("PATCH", "cancel/1", "GET, HEAD, POST"),
            ("GET", "retry/1", "POST"),
            ("GET", "purge-queue", "POST"),
            ("POST", "health", "GET, HEAD"),
            ("POST", "images/1/0.png", "GET, HEAD"),
        ] {
            let response = Request::new(method, &format!("/{version}/stable-diffusion-v1/{path}"))
                .header("Authorization", KEY)
                .send(app.port);
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(response.header("allow"), Some(allowed));
            assert_eq!(response.error(), format!("This route accepts {allowed}."));
        }
    }
}

#[test]
fn the_root_names_the_product() {
    let app = TestApp::start();
    let response = Request::new("GET", "/").send(app.port);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("server"), None);
    let surfaces = Surface::ALL.map(|surface| {
        json!({ "name": surface.name(), "title": surface.title(), "path": surface.path(), "needsKey": true })
    });
    assert_eq!(
        response.json(),
        json!({
            "name": "stablehand", "version": env!("CARGO_PKG_VERSION"), "endpoints": ["stable-diffusion-v1"],
            "surfaces": surfaces, "docs": "/docs", "openapi": "/openapi.json",
        })
    );
}

#[test]
fn oversized_headers_are_refused_and_the_server_continues() {
    let app = TestApp::start();
    let response = Request::new("GET", "/").header("X-Large", &"a".repeat(400_000)).send(app.port);
    assert!(matches!(response.status, 400 | 431), "{}", response.status);
    assert_eq!(Request::new("GET", "/").send(app.port).status, 200);
}

#[test]
fn a_client_that_drips_its_headers_is_dropped_and_delays_no_other() {
    let app = TestApp::start();
    let mut slow = std::net::TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    slow.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    std::io::Write::write_all(&mut slow, b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
    assert_eq!(Request::new("GET", "/").send(app.port).status, 200);
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut slow, &mut answer).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
