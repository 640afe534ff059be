//! Traces, as a collector of OpenTelemetry gets them that the test plays.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use serde_json::{Value, json};

use crate::helpers::{KEY, PATIENCE, Server, data_dir, small};

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
/// The code of a span that failed.
const ERROR: i32 = 2;
const PROMPT: &str = "a secret heart";

// The parts of `opentelemetry/proto/collector/trace/v1` that are looked at.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

impl Span {
    fn attribute(&self, key: &str) -> Value {
        let value = self.attributes.iter().find(|attribute| attribute.key == key);
        match value.and_then(|attribute| attribute.value.as_ref()) {
            Some(AnyValue { text: Some(text), .. }) => json!(text),
            Some(AnyValue { number, .. }) => json!(number),
            None => Value::Null,
        }
    }

    fn trace(&self) -> String {
        hex(&self.trace)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An HTTP request as it came.
#[derive(Clone)]
struct Sent {
    path: String,
    headers: String,
    body: Vec<u8>,
}

/// A server that answers 200 to everything, and keeps it. It also plays the receiver of webhooks.
struct Listener {
    url: String,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let kept = Arc::clone(&sent);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    while let Some(request) = read(&stream) {
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                        if (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, sent }
    }

    fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans so far, with the attributes of what sent them.
    fn spans(&self) -> (Vec<Span>, Vec<Attribute>) {
        let (mut spans, mut resources) = (Vec::new(), Vec::new());
        for request in self.sent().iter().filter(|request| request.path == "/v1/traces") {
            assert!(request.headers.contains("content-type: application/x-protobuf"), "{}", request.headers);
            for sent in Export::decode(&*request.body).unwrap().resources {
                resources.extend(sent.resource.unwrap().attributes);
                spans.extend(sent.scopes.into_iter().flat_map(|scope| scope.spans));
            }
        }
        (spans, resources)
    }

    /// Waits for a span with this name.
    fn wait_for(&self, name: &str) -> Vec<Span> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (spans, _) = self.spans();
            if spans.iter().any(|span| span.name == name) {
                return spans;
            }
            assert!(Instant::now() < deadline, "{name} comes: {spans:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The next request of a connection, its headers in lower case.
fn read(stream: &TcpStream) -> Option<Sent> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let (mut headers, mut length) = (String::new(), 0);
    for line in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let line = line.to_ascii_lowercase();
        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
        headers.push_str(&line);
        headers.push('\n');
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Sent { path, headers, body })
}

fn start(data: &std::path::Path, collector: &str) -> Server {
    Server::start_with(data, |command| {
        command
            .env("STABLEHAND_OTLP", collector)
            .env("STABLEHAND_ALLOW_ADDRESSES", "127.0.0.1")
            .env("STABLEHAND_SAVE_EVERY", "1ms")
            .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=collector-key")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50");
    })
}

fn submit(server: &Server, input: &Value, webhook: &str, caller: Option<&str>) -> String {
    let mut request = ureq::post(server.url("run")).header("Authorization", KEY);
    if let Some(caller) = caller {
        request = request.header("traceparent", caller);
    }
    let body: Value = request
        .send_json(json!({"input": input, "webhook": webhook}))
        .unwrap()
        .body_mut()
        .read_json()
        .unwrap();
    body["id"].as_str().unwrap().to_owned()
}

fn long() -> Value {
    let mut input = small(PROMPT);
    input["num_inference_steps"] = json!(12);
    input["num_outputs"] = json!(2);
    input
}

/// The headers of the webhook's message.
fn message(receiver: &Listener) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(message) = receiver.sent().iter().find(|request| request.path.starts_with("/hook")) {
            return message.headers.clone();
        }
        assert!(Instant::now() < deadline, "the message comes");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_collector_gets_the_spans_of_a_job_in_the_trace_of_its_caller() {
    let (data, collector, receiver) = (data_dir(), Listener::start(), Listener::start());
    let server = start(data.path(), &collector.url);
    let hook = format!("{}/hook?token=hidden", receiver.url);
    let id = submit(&server, &long(), &hook, Some(CALLER));
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
    let told = message(&receiver);
    // The spans of the jobs that are done, and of the load, which is of no request.
    collector.wait_for("webhook");
    assert_eq!(server.terminate().code(), Some(0));
    let (spans, resources) = collector.spans();
    let of = |name: &str| -> Vec<&Span> { spans.iter().filter(|span| span.name == name).collect() };
    let only = |name: &str| -> &Span {
        let found = of(name);
        assert_eq!(found.len(), 1, "{name} in {spans:?}");
        found[0]
    };

    let request = only("POST /v2/{endpoint}/run");
    assert_eq!((request.trace(), hex(&request.parent)), (TRACE.to_owned(), "b7ad6b7169203331".to_owned()));
    assert_eq!(request.attribute("http.response.status_code"), 200);
    let job = only("job");
    assert_eq!((&job.trace, &job.parent), (&request.trace, &request.id));
    assert_eq!(
        ["job.id", "job.endpoint", "job.attempt", "job.end"].map(|key| job.attribute(key)),
        [json!(id), json!("stable-diffusion-v1"), json!(1), json!("COMPLETED")]
    );
    assert!(job.attribute("job.queue_wait_ms").is_i64());
    for name in ["begin", "finish", "step", "save"] {
        for span in of(name) {
            assert_eq!((&span.trace, &span.parent), (&job.trace, &job.id), "{name}");
            assert!(job.start <= span.start && span.end <= job.end, "{name} is within its job");
        }
    }
    assert_eq!((of("begin").len(), of("step").len(), of("finish").len()), (1, 12, 1));
    assert!(!of("save").is_empty());
    // Two pictures, with the prompt and without it.
    let step = of("step")[0];
    assert_eq!((step.attribute("batch.jobs"), step.attribute("batch.rows")), (json!(1), json!(4)));
    let webhook = only("webhook");
    assert_eq!((&webhook.trace, &webhook.parent), (&request.trace, &request.id));
    assert!(told.contains(&format!("traceparent: 00-{TRACE}-{}-01", hex(&webhook.id))), "{told}");
    assert_ne!(only("load").trace(), TRACE);

    let service = resources.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert_eq!(service.value.as_ref().unwrap().text.as_deref(), Some("stablehand"));
    assert!(collector.sent().iter().all(|sent| sent.headers.contains("authorization: collector-key")));
    assert!(spans.iter().all(|span| span.events.is_empty()), "no line of the log is in a span");
    for hidden in ["secret", "hidden", KEY, "127.0.0.1"] {
        let sent = collector.sent();
        let mut bodies = sent.iter().map(|sent| String::from_utf8_lossy(&sent.body));
        assert!(bodies.all(|body| !body.contains(hidden)), "{hidden} is in a span");
    }
}

#[test]
fn a_caller_that_keeps_no_trace_is_not_traced_and_failures_are_marked() {
    let (data, collector, receiver) = (data_dir(), Listener::start(), Listener::start());
    let server = start(data.path(), &collector.url);
    let hook = format!("{}/hook", receiver.url);
    let unsampled = CALLER.replace("-01", "-00");
    let id = submit(&server, &small("a dog"), &hook, Some(&unsampled));
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
    assert!(message(&receiver).contains(&format!("traceparent: 00-{TRACE}-")), "it is passed on");
    assert!(ureq::get(server.url("status/nothing")).call().is_err(), "there is no key");
    let mut lost = small("a dog");
    // What is there is no picture.
    lost["init_image"] = json!(format!("{}/picture.png", receiver.url));
    let failed = server.submit(&lost).unwrap();
    assert_eq!(server.wait(&failed)["status"], "FAILED");
    assert_eq!(server.terminate().code(), Some(0));
    let (spans, _) = collector.spans();
    assert!(spans.iter().all(|span| span.trace() != TRACE), "{spans:?}");
    let refused = spans.iter().find(|span| span.attribute("http.response.status_code") == 401).unwrap();
    let code = |span: &Span| span.status.as_ref().map_or(0, |status| status.code);
    assert_eq!(code(refused), 0, "that is the client's error");
    let failed = spans.iter().find(|span| span.attribute("job.id") == failed).unwrap();
    assert_eq!((failed.attribute("job.end"), code(failed)), (json!("FAILED"), ERROR));
}

#[test]
fn without_a_collector_the_callers_trace_still_reaches_the_webhook() {
    let (data, receiver) = (data_dir(), Listener::start());
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_ALLOW_ADDRESSES", "127.0.0.1");
    });
    submit(&server, &small("a dog"), &format!("{}/hook", receiver.url), Some(CALLER));
    assert!(message(&receiver).contains(&format!("traceparent: {CALLER}\n")));
}

#[test]
fn a_collector_that_is_down_or_hangs_costs_one_line_and_delays_nothing() {
    // One address refuses connections, the other never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (address, is_refused) in [(closed, true), (silent.local_addr().unwrap(), false)] {
        let data = data_dir();
        let log = data.path().join("log");
        let server = Server::start_with(data.path(), |command| {
            command
                .env("STABLEHAND_OTLP", format!("http://{address}"))
                .env("OTEL_BSP_SCHEDULE_DELAY", "20")
                .env("OTEL_BSP_MAX_QUEUE_SIZE", "8")
                .env("STABLEHAND_RATE_LIMITS", "off")
                .stderr(std::fs::File::create(&log).unwrap());
        });
        // Each has more spans than there is room for.
        for _ in 0..3 {
            let id = server.submit(&long()).unwrap();
            assert_eq!(server.wait(&id)["status"], "COMPLETED");
        }
        if is_refused {
            let deadline = Instant::now() + PATIENCE;
            while !std::fs::read_to_string(&log).unwrap().contains("traces cannot be sent") {
                assert!(Instant::now() < deadline, "the log says it");
                thread::sleep(Duration::from_millis(20));
            }
        }
        let stopping = Instant::now();
        assert_eq!(server.terminate().code(), Some(0));
        assert!(stopping.elapsed() < Duration::from_secs(30), "{:?}", stopping.elapsed());
        let lines = std::fs::read_to_string(&log).unwrap();
        assert!(lines.matches("traces cannot be sent").count() <= 1, "{lines}");
        assert!(!lines.contains("secret"), "{lines}");
    }
}
