use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Request;
use crate::helpers::{KEY, TestApp, keyed, prompt};

fn target(id: &str) -> String {
    format!("/v2/stable-diffusion-v1/events/{id}")
}

/// A listener's connection.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(app: &TestApp, id: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            stream,
            "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: {KEY}\r\n\r\n",
            target(id),
            app.port
        )
        .unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.block().unwrap().starts_with("HTTP/1.1 200 OK"));
        events
    }

    /// The lines up to the next empty line, with those that frame a chunk. `None` after the last chunk.
    fn block(&mut self) -> Option<String> {
        let mut block = String::new();
        while self.0.read_line(&mut block).unwrap() > 0 {
            if block.ends_with("\r\n0\r\n") {
                return None;
            }
            if block.ends_with("\n\n") || block.ends_with("\r\n\r\n") {
                return Some(block);
            }
        }
        None
    }

    /// The next event: its name and its data.
    fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block()?;
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(event), Some(data)) = (field("event: "), field("data: ")) {
                let data: Value = serde_json::from_str(&data).unwrap();
                // Only a listener that connects before the first step gets step 0.
                if data["step"] != 0 {
                    return Some((event, data));
                }
            }
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "compared with `next()`, which returns an Option")]
fn event(name: &str, data: Value) -> Option<(String, Value)> {
    Some((name.to_owned(), data))
}

#[test]
fn a_listener_hears_of_a_job_from_the_queue_to_its_end() {
    let app = TestApp::start();
    app.script.hold();
    let before = app.submit(&prompt("a cat"));
    app.script.wait_for_step(1);
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 3, "seed": 7}}));
    let mut events = Events::open(&app, &id);
    assert_eq!(events.next(), event("status", json!({"id": id, "status": "IN_QUEUE"})));
    app.post(&format!("/v2/stable-diffusion-v1/cancel/{before}"), json!(null));
    app.script.allow(2); // the last step of the job before, the first step of this job
    assert_eq!(events.next(), event("status", json!({"id": id, "status": "IN_PROGRESS"})));
    let preview = "data:image/png;base64,wolQTkcgMQ==";
    assert_eq!(
        events.next(),
        event("progress", json!({"step": 1, "steps": 3, "eta_ms": 0, "preview": preview}))
    );
    app.script.allow(1);
    assert_eq!(events.next(), event("progress", json!({"step": 2, "steps": 3, "eta_ms": 0})));
    app.script.open();
    let (mut name, mut data) = events.next().unwrap();
    if name == "progress" {
        assert_eq!(data, json!({"step": 3, "steps": 3, "eta_ms": 0}));
        (name, data) = events.next().unwrap();
    }
    let output = app.get(&format!("/v2/stable-diffusion-v1/status/{id}")).json()["output"].clone();
    assert_eq!((name.as_str(), &data), ("image", &output[0]));
    assert_eq!(events.next(), event("end", json!({"id": id, "status": "COMPLETED"})));
    assert_eq!(events.next(), None);

    // Listening has drained nothing.
    let stream = app.get(&format!("/v2/stable-diffusion-v1/stream/{id}")).json();
    assert_eq!(stream, json!({"status": "COMPLETED", "stream": [{"output": output[0]}]}));
}

#[test]
fn the_end_has_the_jobs_warnings() {
    let app = TestApp::start();
    let id = app.submit(&prompt("warn"));
    let mut events = Events::open(&app, &id);
    let ended = std::iter::from_fn(|| events.next()).last();
    let warnings = ["The script has no \"ink\"."];
    assert_eq!(ended, event("end", json!({"id": id, "status": "COMPLETED", "warnings": warnings})));
}

#[test]
fn the_bytes_have_the_format_of_server_sent_events() {
    let app = TestApp::start();
    let id = app.submit(&prompt("fail"));
    app.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}"));
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    write!(
        stream,
        "GET {} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: {KEY}\r\n\r\n",
        target(&id)
    )
    .unwrap();
    let answer = std::io::read_to_string(stream).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let chunk = body.split_once("\r\n").unwrap().1.strip_suffix("\r\n0\r\n\r\n").unwrap();
    assert_eq!(
        chunk,
        format!(
            "retry: 2000\n\nid: end\nevent: end\ndata: {{\"error\":\"The model failed: The script says no.\",\
             \"id\":\"{id}\",\"status\":\"FAILED\"}}\n\n"
        )
    );
    for header in ["content-type: text/event-stream", "cache-control: no-store", "x-accel-buffering: no"] {
        assert!(head.contains(header), "{head}");
    }
}

#[test]
fn a_browser_that_has_seen_the_end_is_told_to_stop() {
    let app = TestApp::start();
    let id = app.submit(&prompt("a dog"));
    app.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}"));
    let again = |last: &str| keyed("GET", &target(&id)).header("Last-Event-ID", last).send(app.port);
    assert_eq!((again("end").status, again("end").text()), (204, ""));
    assert_eq!(again("something else").status, 200);
    assert_eq!(app.get(&target("c80ffee4-f315-4e25-a146-0f3d98cf024b")).status, 404);
}

#[test]
fn a_signed_url_opens_one_jobs_events_for_ten_minutes() {
    let app = TestApp::start();
    let id = app.submit(&prompt("a dog"));
    let status = app.get(&format!("/v2/stable-diffusion-v1/status-sync/{id}")).json();
    let body = app.post(&format!("{}/url", target(&id)), json!(null)).json();
    let base = format!("http://127.0.0.1:{}", app.port);
    let url = body["url"].as_str().unwrap().strip_prefix(&base).unwrap().to_owned();
    assert_eq!(body, json!({"url": format!("{base}{url}"), "expires": 1_700_000_600}));

    let open = |url: &str| Request::new("GET", url).send(app.port);
    assert_eq!(open(&url).status, 200);
    let query = url.split_once('?').unwrap().1;
    let image = status["output"][0]["image"].as_str().unwrap();
    let another = app.submit(&prompt("a cat"));
    for altered in [
        format!("{}?{query}", target(&another)),
        format!("{}?{}", target(&id), image.split_once('?').unwrap().1),
        url.replace("expires=17", "expires=18"),
        format!("{}?expires=1700000600", target(&id)),
        url.replace("/v2/", "/v1/").replace("signature=", "signature=A"),
    ] {
        assert_eq!(open(&altered).error(), "The signature of this URL is not valid.", "{altered}");
    }
    assert_eq!(open(&target(&id)).status, 401);
    assert_eq!(Request::new("POST", &format!("{}/url", target(&id))).send(app.port).status, 401);
    assert_eq!(open(&format!("{}/url", target(&id))).status, 405);
    app.advance_ms(600_000);
    assert_eq!(open(&url).error(), "This URL has expired: request a new one.");
}

#[test]
fn a_deleted_job_ends_its_events_and_so_does_a_cancelled_one() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let (purged, cancelled) = (app.submit(&prompt("a dog")), app.submit(&prompt("a cat")));
    let mut events = [&purged, &cancelled].map(|id| Events::open(&app, id));
    for events in &mut events {
        assert_eq!(events.next().unwrap().0, "status");
    }
    app.post(&format!("/v2/stable-diffusion-v1/cancel/{cancelled}"), json!(null));
    assert_eq!(events[1].next(), event("end", json!({"id": cancelled, "status": "CANCELLED"})));
    app.post("/v2/stable-diffusion-v1/purge-queue", json!(null));
    let gone = "No such job: it never existed, or it has been deleted.";
    assert_eq!(events[0].next(), event("end", json!({"error": gone})));
    assert_eq!(events.map(|mut events| events.next()), [None, None]);
}

#[test]
fn a_server_that_stops_sends_no_end_so_that_browsers_reconnect() {
    let mut app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let mut events = Events::open(&app, &id);
    assert_eq!(events.next().unwrap().0, "status");
    let start = Instant::now();
    app.stop();
    assert_eq!(events.next(), None);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn a_thousand_listeners_hear_the_end_and_a_closed_connection_costs_no_preview() {
    let app = TestApp::with(|config| config.http.rate_limits = stablehand::http::RateLimits::OFF);
    app.script.allow(1);
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 400}}));
    app.script.wait_for_step(2);
    let mut listeners: Vec<Events> = (0..1000).map(|_| Events::open(&app, &id)).collect();
    for events in &mut listeners {
        assert_eq!(events.next().unwrap().0, "status");
    }
    let start = Instant::now();
    app.script.allow(100);
    app.script.wait_for_step(100);
    assert_eq!(app.script.previews(), 1);
    // The server drops a closed connection when it sends the next step.
    listeners.truncate(900);
    app.script.open();
    for events in &mut listeners {
        while events.next().unwrap().0 != "end" {}
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    drop(listeners);

    app.script.allow(1);
    let id = app.submit(&json!({"input": {"prompt": "a dog", "num_inference_steps": 400}}));
    app.script.wait_for_step(2);
    let mut events = Events::open(&app, &id);
    assert_eq!(events.next().unwrap().0, "status");
    drop(events);
    // One preview a second, until the server has noticed. The request gives it the time to do so.
    let noticed = (0..300).any(|_| {
        app.advance_ms(1_000);
        app.script.allow(1);
        app.script.wait_for_step(1);
        assert_eq!(app.status(&id).json()["status"], "IN_PROGRESS");
        app.script.previews() == 0
    });
    assert!(noticed, "300 steps after the only listener left, the server still draws previews");
}
