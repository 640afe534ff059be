//! API keys: which requests are let in.

use crate::client::{Request, Response};
use crate::helpers::{KEY, TestApp, VERSIONS};
use stablehand::config::Access;

fn health(app: &TestApp, authorization: Option<&str>) -> Response {
    let request = Request::new("GET", "/v2/stable-diffusion-v1/health");
    authorization
        .into_iter()
        .fold(request, |request, value| request.header("Authorization", value))
        .send(app.port)
}

#[test]
fn all_published_forms_of_a_key_are_accepted() {
    let app = TestApp::start();
    for form in ["KEY", "Bearer KEY", "bearer KEY", "BEARER   KEY"] {
        assert_eq!(health(&app, Some(&form.replace("KEY", KEY))).status, 200, "{form}");
    }
    assert_eq!(health(&app, Some("Bearer second-key")).status, 200);
}

#[test]
fn a_missing_or_wrong_key_is_401_on_every_route() {
    let app = TestApp::start();
    for authorization in
        [None, Some(""), Some("Bearer"), Some("Bearer wrong"), Some("Basic dGVzdA=="), Some("\u{e9}")]
    {
        let response = health(&app, authorization);
        assert_eq!(response.status, 401, "{authorization:?}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        assert_eq!(response.error(), "No valid API key: send one as `Authorization: Bearer KEY`.");
    }
    for version in VERSIONS {
        for (method, path) in [
            ("POST", "run"),
            ("POST", "runsync"),
            ("GET", "status/1"),
            ("POST", "status-sync/1"),
            ("POST", "cancel/1"),
            ("POST", "retry/1"),
            ("POST", "purge-queue"),
            ("GET", "health"),
        ] {
            let target = format!("/{version}/stable-diffusion-v1/{path}");
            assert_eq!(Request::new(method, &target).send(app.port).status, 401, "{path}");
        }
    }
    assert_eq!(Request::new("GET", "/v2/unknown/health").send(app.port).status, 401);
}

#[test]
fn the_first_start_creates_a_key_and_later_starts_keep_it() {
    let mut app = TestApp::with(|config| config.access = Access::OwnKey);
    let key = app.own_key();
    assert_eq!(health(&app, Some(&key)).status, 200);
    assert_eq!(health(&app, Some(KEY)).status, 401);
    app.restart();
    assert_eq!(app.own_key(), key);
    assert_eq!(health(&app, Some(&key)).status, 200);
}

#[test]
fn with_authentication_off_everybody_may_use_the_server() {
    let app = TestApp::with(|config| config.access = Access::Everybody);
    assert_eq!(health(&app, None).status, 200);
    assert_eq!(health(&app, Some("whatever")).status, 200);
}
