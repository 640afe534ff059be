//! The page at `/`: its document, its assets, and what keeps strangers out. `tests/page` uses it in a browser.

use crate::client::Request;
use crate::helpers::TestApp;

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

fn page(app: &TestApp) -> String {
    let response = Request::new("GET", "/").header("Accept", BROWSER).send(app.port);
    assert_eq!(response.status, 200);
    response.text().to_owned()
}

/// The targets of the page's links to its assets.
fn assets(page: &str) -> Vec<&str> {
    let targets =
        page.split("href=\"").chain(page.split("src=\"")).map(|part| part.split('"').next().unwrap());
    targets.filter(|target| target.starts_with("page/")).collect()
}

#[test]
fn browsers_get_the_page_and_programs_the_index() {
    let app = TestApp::start();
    let response = Request::new("GET", "/").header("Accept", BROWSER).send(app.port);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(
        (response.header("vary"), response.header("cache-control")),
        (Some("accept"), Some("no-cache"))
    );
    for accept in ["*/*", "application/json, text/event-stream"] {
        let index = Request::new("GET", "/").header("Accept", accept).send(app.port).json();
        assert_eq!(index["endpoints"], serde_json::json!(["stable-diffusion-v1"]));
        let openai = serde_json::json!({"name": "openai", "title": "OpenAI Images API", "path": "/v1", "needsKey": true});
        assert!(index["surfaces"].as_array().unwrap().contains(&openai), "{index}");
    }
}

#[test]
fn the_page_runs_only_its_own_files() {
    let app = TestApp::start();
    let response = Request::new("GET", "/").header("Accept", BROWSER).send(app.port);
    let policy = response.header("content-security-policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"));
    let page = response.text();
    assert!(
        !page.contains("<style")
            && !page.contains(" style=")
            && !page.contains(" on")
            && !page.contains("http")
    );
    assert_eq!(page.matches("<script").count(), 1);
    assert!(assets(page).len() > 20);
}

#[test]
fn every_asset_is_there_compressed_and_kept_for_good() {
    let app = TestApp::start();
    let page = page(&app);
    let mut compressed = 0;
    for target in assets(&page) {
        let plain = Request::new("GET", &format!("/{target}")).send(app.port);
        assert_eq!(plain.status, 200, "{target}");
        assert_eq!(plain.header("cache-control"), Some("public, max-age=31536000, immutable"));
        let kind = plain.header("content-type").unwrap();
        assert!(
            ["text/css; charset=utf-8", "text/javascript; charset=utf-8", "image/svg+xml"].contains(&kind)
        );
        let small =
            Request::new("GET", &format!("/{target}")).header("Accept-Encoding", "br, gzip").send(app.port);
        assert_eq!(small.header("content-encoding"), Some("gzip"), "{target}");
        assert!(small.body.starts_with(&[0x1f, 0x8b]) && small.header("vary") == Some("accept-encoding"));
        let refused =
            Request::new("GET", &format!("/{target}")).header("Accept-Encoding", "gzip;q=0").send(app.port);
        assert_eq!((refused.header("content-encoding"), refused.body == plain.body), (None, true));
        let tag = plain.header("etag").unwrap();
        let known = Request::new("GET", &format!("/{target}")).header("If-None-Match", tag).send(app.port);
        assert_eq!((known.status, known.body.len()), (304, 0));
        // Its own script is named twice: once to be loaded early, once to be run.
        compressed += if target.ends_with("main.js") { small.body.len() / 2 } else { small.body.len() };
    }
    assert!(compressed < 150_000, "the page has {compressed} compressed bytes");
}

#[test]
fn an_older_page_still_gets_assets_but_does_not_keep_them() {
    let app = TestApp::start();
    let response = Request::new("GET", "/page/0123/main.js").send(app.port);
    assert_eq!((response.status, response.header("cache-control")), (200, Some("no-cache")));
    for target in ["/page/0123/none.js", "/page/0123", "/page/0123/..%2fmod.rs", "/page"] {
        assert_eq!(Request::new("GET", target).send(app.port).status, 404, "{target}");
    }
}

#[test]
fn every_module_is_listed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page/assets");
    let page = page(&TestApp::start());
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(page.contains(&format!("/{name}\"")), "src/http/page/assets.rs lacks {name}");
    }
}
