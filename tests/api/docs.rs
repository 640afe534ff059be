use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::client::Request;
use crate::helpers::{KEY, TestApp, keyed, prompt};

fn openapi(app: &TestApp) -> Value {
    let response = Request::new("GET", "/openapi.json").send(app.port);
    assert_eq!(response.status, 200);
    response.json()
}

#[test]
fn the_document_describes_exactly_the_routes_of_the_server() {
    let app = TestApp::start();
    let document = openapi(&app);
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], format!("http://127.0.0.1:{}/v2", app.port));
    let paths = document["paths"].as_object().unwrap();
    let mut names = BTreeSet::new();
    for (path, item) in paths {
        let target = format!("/v2{path}").replace("{endpoint}", "stable-diffusion-v1");
        // The server refuses exactly the methods that are not described.
        for method in ["get", "post", "delete"] {
            let name = item[method]["operationId"].as_str();
            let response = keyed(&method.to_uppercase(), &target).send(app.port);
            assert_eq!(response.status == 405, name.is_none(), "{method} {path}");
            if let Some(name) = name {
                assert!(names.insert(name.to_owned()), "{name} is there twice");
                assert!(!response.text().contains("No such route."), "{path}");
            }
        }
    }
    for path in ["run", "runsync", "status/{id}", "status-sync/{id}", "cancel/{id}", "retry/{id}"] {
        assert!(paths.contains_key(&format!("/{{endpoint}}/{path}")), "{path}");
    }
}

#[test]
fn pages_are_compressed_for_those_who_take_it_and_name_the_address_that_was_asked() {
    let app = TestApp::start();
    let ask = |target: &str, host: &str, coding: &str| {
        let request = Request::new("GET", target).header("Host", host).header("Accept-Encoding", coding);
        let response = request.send(app.port);
        assert_eq!(response.status, 200, "{target}");
        response
    };
    for target in ["/docs", "/docs/input", "/docs/page.css", "/docs/page.js", "/openapi.json"] {
        for host in ["a.example", "b.example", "a.example"] {
            let (plain, small) = (ask(target, host, "identity"), ask(target, host, "gzip"));
            assert_eq!(
                (plain.header("content-encoding"), plain.header("vary")),
                (None, Some("accept-encoding"))
            );
            assert_eq!(small.header("content-encoding"), Some("gzip"));
            assert!(small.body.len() < plain.body.len(), "{target}");
            if ["/docs", "/openapi.json"].contains(&target) {
                assert!(plain.text().contains(&format!("http://{host}/v2")), "{target} {host}");
            }
        }
    }
}

#[test]
fn every_reference_in_the_document_resolves() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = openapi(&TestApp::start());
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

/// Asks the server for a value at each limit that the document states, and for one just beyond it.
#[test]
fn the_documents_limits_are_the_servers() {
    let app = TestApp::with(|config| {
        config.endpoints[0].workers = 0;
        config.http.rate_limits = stablehand::http::RateLimits::OFF;
    });
    let document = openapi(&app);
    let fields = document["components"]["schemas"]["Input"]["properties"].as_object().unwrap();
    let submit = |field: &str, value: &Value| {
        let mut input = json!({"prompt": "a dog", "width": 64, "height": 64});
        input[field] = value.clone();
        app.post("/v2/stable-diffusion-v1/run", json!({ "input": input }))
    };
    for (name, field) in fields {
        let step = field["multipleOf"].as_i64().unwrap_or(1);
        for (bound, beyond) in [("minimum", -step), ("maximum", step)] {
            let Some(edge) = field[bound].as_i64() else { continue };
            let fits = submit(name, &json!(edge));
            assert_eq!(fits.status, 200, "{name} = {edge}: {}", fits.text());
            assert_eq!(submit(name, &json!(edge + beyond)).status, 400, "{name} beyond {edge}");
        }
        for word in field["enum"].as_array().into_iter().flatten() {
            assert_eq!(submit(name, word).status, 200, "{name} = {word}");
        }
        if let Some(default) = field.get("default") {
            assert_eq!(submit(name, default).status, 200, "{name} = {default}");
        }
        assert_eq!(submit(name, &json!({"no": "such type"})).status, 400, "{name}");
        let null = submit(name, &Value::Null);
        assert_eq!(null.status == 200, name != "prompt", "{name}: {}", null.text());
    }
    assert_eq!(submit("no_such_field", &json!(1)).status, 400);
}

#[test]
fn every_accepted_field_is_described() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let document = openapi(&app);
    let described: BTreeSet<&str> = document["components"]["schemas"]["Input"]["properties"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let taken: BTreeSet<&str> = stablehand::domain::GenerationInput::FIELDS.into_iter().collect();
    assert_eq!(described, taken);
}

#[test]
fn answers_look_as_described() {
    let app = TestApp::start();
    let document = openapi(&app);
    let fits = |schema: &str, body: &Value| {
        let schema = &document["components"]["schemas"][schema];
        let known = schema["properties"].as_object().unwrap();
        let fields = body.as_object().unwrap();
        assert!(fields.keys().all(|name| known.contains_key(name)), "{body}");
        let required = schema["required"].as_array().unwrap();
        assert!(required.iter().all(|name| fields.contains_key(name.as_str().unwrap())), "{body}");
    };
    let done = app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog")).json();
    fits("Job", &done);
    fits("Picture", &done["output"][0]);
    let id = app.submit(&prompt("a dog"));
    fits("Job", &app.get(&format!("/v2/stable-diffusion-v1/status/{id}")).json());
    fits("Cancelled", &app.get(&format!("/v2/stable-diffusion-v1/cancel/{id}")).json());
    fits("Purged", &app.post_text("/v2/stable-diffusion-v1/purge-queue", "").json());
    let health = app.get("/v2/stable-diffusion-v1/health").json();
    fits("Health", &health);
    fits("Error", &app.get("/nowhere").json());
    fits("Model", &app.get("/v2/stable-diffusion-v1/model").json());
    let kept = app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog")).id();
    fits("Deleted", &app.post_text(&format!("/v2/stable-diffusion-v1/delete/{kept}"), "").json());
}

/// The names of the events that a listener gets from a job's first step to its end.
fn sent_events(app: &TestApp) -> BTreeSet<String> {
    app.script.hold();
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 3}}));
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    write!(
        stream,
        "GET /v2/stable-diffusion-v1/events/{id} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Authorization: {KEY}\r\n\r\n"
    )
    .unwrap();
    let mut names = BTreeSet::new();
    for line in BufReader::new(stream).lines() {
        let Some(name) = line.unwrap().strip_prefix("event: ").map(str::to_owned) else { continue };
        // Each step waits until the listener has heard of what came before it.
        match name.as_str() {
            "status" => app.script.allow(1),
            "progress" => app.script.open(),
            _ => {}
        }
        names.insert(name);
    }
    names
}

#[test]
fn the_document_names_the_events_that_the_server_sends() {
    let app = TestApp::start();
    let sent = sent_events(&app);
    let sent: BTreeSet<&str> = sent.iter().map(String::as_str).collect();
    let document = openapi(&app);
    let operation = &document["paths"]["/{endpoint}/events/{id}"]["get"];
    let event = "/responses/200/content/text~1event-stream/schema/properties/event/enum";
    let described: BTreeSet<&str> = operation
        .pointer(event)
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(described, sent);
    // The sentence says the same names: it lists them in backticks before its first full stop.
    let sentence = operation["description"].as_str().unwrap().split('.').next().unwrap();
    let named: BTreeSet<&str> = sentence.split('`').skip(1).step_by(2).collect();
    assert_eq!(named, sent);
}

#[test]
fn the_reference_page_needs_no_other_host() {
    let app = TestApp::start();
    let response = Request::new("GET", "/docs").send(app.port);
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = response.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'self'; script-src 'self';"), "{policy}");
    let page = response.text();
    assert!(page.contains(&format!("http://127.0.0.1:{}/v2/stable-diffusion-v1/run", app.port)));
    for name in ["guidance_scale", "K-LMS", "Retry-After", "$STABLEHAND_API_KEY"] {
        assert!(page.contains(name), "{name}");
    }
    // No inline script, style or handler: the policy would not run them.
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains("onclick"));
    for part in page.split("src=\"").skip(1).chain(page.split("<link rel=\"stylesheet\" href=\"").skip(1)) {
        let target = part.split('"').next().unwrap();
        assert!(!target.starts_with('/'), "{target} would not work behind a path prefix");
        assert_eq!(Request::new("GET", &format!("/{target}")).send(app.port).status, 200, "{target}");
    }
}

#[test]
fn a_malformed_host_does_not_get_into_the_page() {
    let app = TestApp::start();
    let host = "\"><script>alert(1)</script>";
    let response = Request::new("GET", "/docs").header("Host", host).send(app.port);
    assert!(!response.text().contains("alert(1)"));
}
