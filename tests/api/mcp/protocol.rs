//! The protocol itself: versions, sessions, keys and origins.

use serde_json::{Value, json};

use super::{ACCEPT, Answer, ENDPOINT, VERSION, ask, begin, call, initialize, posted, request};
use crate::client::Request;
use crate::helpers::{TestApp, keyed};

#[test]
fn a_client_begins_with_any_version_that_it_knows() {
    let app = TestApp::start();
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let mut answer = Answer::open(&app, &initialize(asked), &[]);
        assert_eq!((answer.status(), answer.header("content-type")), (200, Some("text/event-stream")));
        assert!(answer.header("mcp-session-id").is_some());
        let result = answer.next().unwrap()["result"].clone();
        assert_eq!(result["protocolVersion"], agreed);
        assert_eq!(result["serverInfo"]["name"], "stablehand");
        assert_eq!(result["capabilities"], json!({"tools": {}}));
        assert!(result["instructions"].as_str().unwrap().contains("get_job"));
        assert!(answer.next().is_none());
    }
}

#[test]
fn the_newest_version_needs_no_session() {
    let app = TestApp::start();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let send = |method: &str, name: Option<&str>, params: Value| {
        let mut params = params;
        params["_meta"] = meta.clone();
        let name = name.map(|name| ("Mcp-Name", name));
        let headers = [Some(("MCP-Protocol-Version", "2026-07-28")), Some(("Mcp-Method", method)), name];
        let headers: Vec<_> = headers.into_iter().flatten().collect();
        let mut answer = Answer::open(&app, &request("a", method, params), &headers);
        assert_eq!((answer.status(), answer.header("mcp-session-id")), (200, None));
        answer.next().unwrap()
    };
    let discovered = send("server/discover", None, json!({}));
    assert!(discovered["result"]["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    let drawn = send("tools/call", Some("list_models"), json!({"name": "list_models", "arguments": {}}));
    assert_eq!(drawn["result"]["structuredContent"]["models"][0]["id"], "stable-diffusion-v1", "{drawn}");
}

#[test]
fn every_tool_is_described_with_the_limits_of_the_input() {
    let app = TestApp::start();
    let answer = ask(&app, &request(1, "tools/list", json!({})));
    let tools = answer["result"]["tools"].as_array().unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["generate_image", "edit_image", "upscale_image", "get_job", "cancel_job", "list_models"]
    );
    for tool in tools {
        assert!(tool["description"].as_str().unwrap().len() > 30, "{tool}");
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object");
            let properties = tool[schema]["properties"].as_object().unwrap();
            for required in tool[schema]["required"].as_array().unwrap() {
                assert!(properties.contains_key(required.as_str().unwrap()), "{tool}");
            }
            for (name, property) in properties {
                // Some providers of language models know no lists of types.
                assert!(property["type"].is_string(), "{name}: {property}");
                let number = |key: &str| property.get(key).and_then(Value::as_f64);
                if let Some(default) = number("default") {
                    assert!(number("minimum").is_none_or(|minimum| default >= minimum), "{name}");
                    assert!(number("maximum").is_none_or(|maximum| default <= maximum), "{name}");
                }
            }
        }
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
    }
    let fields = &tools[0]["inputSchema"]["properties"];
    for (name, key, value) in [
        ("steps", "maximum", json!(500)),
        ("steps", "default", json!(50)),
        ("count", "maximum", json!(10)),
        ("guidance", "maximum", json!(20)),
        ("width", "default", json!(512)),
        ("height", "maximum", json!(4096)),
        ("format", "enum", json!(["png", "jpeg", "webp"])),
        ("model", "enum", json!(["stable-diffusion-v1"])),
    ] {
        assert_eq!(fields[name][key], value, "{name}");
    }
    assert_eq!(tools[1]["inputSchema"]["required"], json!(["prompt", "image"]));
    assert_eq!(
        (&tools[3]["annotations"]["readOnlyHint"], &tools[4]["annotations"]["destructiveHint"]),
        (&json!(true), &json!(true))
    );
}

#[test]
fn a_session_ends_when_its_client_says_so() {
    let app = TestApp::start();
    let session = begin(&app);
    let ping = |session: &str| {
        posted(request(1, "ping", json!({})).to_string())
            .header("Mcp-Session-Id", session)
            .send(app.port)
            .status
    };
    let notified = posted(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string());
    assert_eq!(notified.header("Mcp-Session-Id", &session).send(app.port).status, 202);
    assert_eq!(ping(&session), 200);
    // Another key's session is none.
    let strange = Request::new("DELETE", ENDPOINT).header("Authorization", "Bearer second-key");
    assert_eq!(strange.header("Mcp-Session-Id", &session).send(app.port).status, 404);
    let end = || keyed("DELETE", ENDPOINT).header("Mcp-Session-Id", &session).send(app.port);
    assert_eq!(end().status, 204);
    assert_eq!((end().status, ping(&session), ping("none")), (404, 404, 404));
    assert_eq!(keyed("DELETE", ENDPOINT).send(app.port).status, 400);
}

#[test]
fn the_server_never_speaks_first() {
    let app = TestApp::start();
    let response = keyed("GET", ENDPOINT).header("Accept", "text/event-stream").send(app.port);
    assert_eq!((response.status, response.header("allow")), (405, Some("POST, DELETE")));
    let error = json!({"code": -32600, "message": "This route accepts POST, DELETE."});
    assert_eq!(response.json(), json!({"jsonrpc": "2.0", "id": null, "error": error}));
}

#[test]
fn without_a_key_and_from_strange_pages_nothing_is_answered() {
    let mut app = TestApp::start();
    let ping = |app: &TestApp, headers: &[(&str, &str)]| {
        let request = Request::new("POST", ENDPOINT)
            .header("Content-Type", "application/json")
            .header("Accept", ACCEPT);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        request.body(super::request(1, "ping", json!({})).to_string()).send(app.port)
    };
    let refused = ping(&app, &[]);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(
        refused.json()["error"]["message"],
        "No valid API key: send one as `Authorization: Bearer KEY`."
    );
    let key = ("Authorization", "Bearer first-key");
    assert_eq!(ping(&app, &[key, ("Origin", "http://evil.example")]).status, 403);
    assert_eq!(ping(&app, &[key]).status, 200);
    // Where nobody needs a key, a page that reaches the server by a name of its own is still kept out.
    app.configure(|config| {
        config.access = stablehand::config::Access::Everybody;
        config.http.cors_origins = vec!["http://chat.example".to_owned()];
    });
    app.restart();
    assert_eq!(ping(&app, &[("Host", "evil.example"), ("Origin", "http://evil.example")]).status, 403);
    assert_eq!(ping(&app, &[("Origin", "http://evil.example")]).status, 403);
    assert_eq!(ping(&app, &[("Origin", "http://chat.example")]).status, 200);
    assert_eq!(ping(&app, &[]).status, 200);
}

#[test]
fn a_version_that_nobody_knows_is_refused() {
    let app = TestApp::start();
    let list = request(1, "tools/list", json!({})).to_string();
    for (version, status) in [(VERSION, 200), ("2025-11-25", 200), ("1.0", 400), ("\u{e9}", 400)] {
        let response = posted(list.clone()).header("MCP-Protocol-Version", version).send(app.port);
        assert_eq!(response.status, status, "{version}");
    }
}

#[test]
fn what_the_protocol_refuses_is_an_error_of_json_rpc_too() {
    let app = TestApp::start();
    let ping = request(1, "ping", json!({})).to_string();
    let sent = |kind: &str, accept: &str| {
        let request = keyed("POST", ENDPOINT).header("Content-Type", kind).header("Accept", accept);
        request.body(ping.as_str()).send(app.port)
    };
    for (kind, accept, status) in [
        ("application/json", "*/*", 406),
        ("application/json", "application/json", 406),
        ("text/plain", ACCEPT, 415),
        ("application/json", ACCEPT, 200),
    ] {
        let response = sent(kind, accept);
        assert_eq!(response.status, status, "{kind} {accept}: {}", response.text());
        if status != 200 {
            assert_eq!(response.header("content-type"), Some("application/json"));
            let body = response.json();
            let sentence = body["error"]["message"].as_str().unwrap();
            assert!(!sentence.is_empty() && sentence.ends_with('.'), "{body}");
            assert_eq!((&body["error"]["code"], &body["id"]), (&json!(-32600), &Value::Null), "{body}");
        }
    }
    // The document describes paths below these.
    for target in ["/v1/mcp", "/v2/mcp"] {
        let request =
            keyed("POST", target).header("Content-Type", "application/json").header("Accept", ACCEPT);
        assert_eq!(request.body(ping.as_str()).send(app.port).status, 200, "{target}");
    }
}

#[test]
fn a_surface_that_is_off_has_no_route() {
    let app = TestApp::with(|config| config.http.surfaces = "openai".parse().unwrap());
    assert_eq!(posted(call(1, "list_models", json!({})).to_string()).send(app.port).status, 404);
}
