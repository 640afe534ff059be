//! What all surfaces share: which are on, which need no key, and that no route forgets to ask for one.

use stablehand::config::Access;
use stablehand::http::RateLimits;

use crate::client::Request;
use crate::helpers::{TestApp, keyed, prompt};

#[test]
fn a_surface_that_is_off_has_no_routes() {
    let app = TestApp::with(|config| config.http.surfaces = "none".parse().unwrap());
    for (method, target) in [("GET", "/v1/models"), ("POST", "/v1/images/generations"), ("GET", "/models")] {
        let response = keyed(method, target).send(app.port);
        assert_eq!((response.status, response.error().as_str()), (404, "No such route."), "{target}");
    }
    assert_eq!(app.post("/v1/stable-diffusion-v1/runsync", prompt("a dog")).status, 200);
}

#[test]
fn an_open_surface_needs_no_key_from_this_machine() {
    let app = TestApp::with(|config| config.http.open_surfaces = "openai".parse().unwrap());
    let models = |headers: &[(&str, &str)]| {
        let request = Request::new("GET", "/v1/models");
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .send(app.port)
            .status
    };
    assert_eq!(models(&[]), 200);
    // Clients that must have a key send any text.
    assert_eq!(models(&[("Authorization", "Bearer sk-none")]), 200);
    // Through a proxy from elsewhere, and from a page of another site in a browser here.
    assert_eq!(models(&[("X-Forwarded-For", "203.0.113.7")]), 401);
    assert_eq!(models(&[("Origin", "https://evil.example")]), 401);
    assert_eq!(models(&[("Origin", "https://evil.example"), ("Authorization", "Bearer first-key")]), 200);
    // Everything else still needs one.
    assert_eq!(Request::new("GET", "/v2/stable-diffusion-v1/health").send(app.port).status, 401);
    assert_eq!(Request::new("GET", "/metrics").send(app.port).status, 401);
}

#[test]
fn an_open_surface_can_name_a_network_and_pages() {
    let app = TestApp::with(|config| {
        config.http.open_surfaces = "openai@203.0.113.0/24".parse().unwrap();
        config.http.cors_origins = vec!["https://gallery.example".to_owned()];
    });
    let models =
        |name: &str, value: &str| Request::new("GET", "/v1/models").header(name, value).send(app.port).status;
    assert_eq!(models("X-Forwarded-For", "203.0.113.7"), 200);
    assert_eq!(models("X-Forwarded-For", "203.0.114.7"), 401);
    assert_eq!(models("Origin", "https://gallery.example"), 200);
}

#[test]
fn guessing_keys_at_a_surface_is_slow_too() {
    let app = TestApp::with(|config| config.http.rate_limits = "unauthorized=2".parse().unwrap());
    let guess = |target: &str| {
        let guess = Request::new("GET", target).header("Authorization", "Bearer no");
        guess.header("X-Forwarded-For", "203.0.113.7").send(app.port)
    };
    assert_eq!((guess("/v1/models").status, guess("/v1/models").status), (401, 401));
    let locked = guess("/v1/models");
    assert_eq!((locked.status, locked.header("retry-after")), (429, Some("10")));
    assert_eq!(guess("/v2/stable-diffusion-v1/health").status, 429);
}

#[test]
fn without_a_key_nothing_answers_but_pings_and_pages() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    let document = Request::new("GET", "/openapi.json").send(app.port).json();
    let mut refused = 0;
    // They tell yes or no.
    let probes = ["/internal/ping", "/live", "/ready"];
    for path in document["paths"].as_object().unwrap().keys().filter(|path| !probes.contains(&path.as_str()))
    {
        let target = path.replace("{endpoint}", "stable-diffusion-v1");
        for prefix in ["/v1", "/v2", ""] {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"] {
                let response = Request::new(method, &format!("{prefix}{target}")).send(app.port);
                assert!((400..500).contains(&response.status), "{method} {prefix}{target}: {response:?}");
                refused += u32::from(matches!(response.status, 401 | 403));
            }
        }
    }
    assert!(refused > 40, "{refused}");
    // No document describes this one.
    assert_eq!(Request::new("GET", "/metrics").send(app.port).status, 401);
    for method in ["POST", "DELETE"] {
        assert_eq!(Request::new(method, "/mcp").send(app.port).status, 401);
    }
    for page in ["/", "/docs", "/openapi.json", "/docs/page.css", "/docs/api"] {
        assert_eq!(Request::new("GET", page).send(app.port).status, 200, "{page}");
    }
}

#[test]
fn with_authentication_off_surfaces_need_no_key_either() {
    let app = TestApp::with(|config| config.access = Access::Everybody);
    for authorization in ["", "Basic", "Bearer whatever"] {
        let request = Request::new("GET", "/v1/models").header("Authorization", authorization);
        assert_eq!(request.send(app.port).status, 200);
    }
}
