//! Webhooks.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::fetch::AllowedAddresses;
use stablehand::webhooks::WebhookSecret;

use crate::helpers::{TestApp, prompt, wait_until_forgotten};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A webhook receiver on this machine.
struct Receiver(TcpListener);

impl Receiver {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hook", self.0.local_addr().unwrap().port())
    }

    /// Waits for the next request and answers 200. Returns its headers and body.
    fn receive(&self) -> (Vec<(String, String)>, String) {
        let (stream, _) = self.0.accept().unwrap();
        let got = request(&stream);
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        got
    }
}

fn request(stream: &TcpStream) -> (Vec<(String, String)>, String) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "POST /hook HTTP/1.1\r\n");
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let length = header(&headers, "content-length").parse().unwrap();
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (headers, String::from_utf8(body).unwrap())
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
    &headers.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("{name}")).1
}

fn app() -> TestApp {
    TestApp::with(|config| {
        config.allow_addresses = "127.0.0.1".parse().unwrap();
        config.webhook_secret = Some(SECRET.parse().unwrap());
        config.sweep_interval = Duration::from_millis(100);
    })
}

fn body(receiver: &Receiver, events: Value) -> Value {
    json!({"input": {"prompt": "a dog"}, "webhook": receiver.url(), "webhookEvents": events})
}

#[test]
fn a_webhook_gets_the_signed_status_body() {
    let (app, receiver) = (app(), Receiver::new());
    let id = app.submit(&body(&receiver, json!(null)));
    let (headers, text) = receiver.receive();
    let status = app.status(&id);
    assert_eq!(text, status.text());
    assert_eq!(status.json()["status"], "COMPLETED");
    assert_eq!(header(&headers, "content-type"), "application/json");
    let (name, timestamp) = (header(&headers, "webhook-id"), header(&headers, "webhook-timestamp"));
    assert!(name.starts_with(&format!("msg_{id}_")), "{name}");
    let secret: WebhookSecret = SECRET.parse().unwrap();
    let signature = secret.sign(name, timestamp.parse().unwrap(), &text);
    assert_eq!(header(&headers, "webhook-signature"), signature);
    let image = status.json()["output"][0]["image"].as_str().unwrap().to_owned();
    assert!(image.starts_with(&format!("http://127.0.0.1:{}/v2/", app.port)), "{image}");
}

#[test]
fn the_start_event_is_sent_on_request() {
    let (app, receiver) = (app(), Receiver::new());
    app.script.hold();
    let id = app.submit(&body(&receiver, json!(["start", "completed"])));
    let started: Value = serde_json::from_str(&receiver.receive().1).unwrap();
    assert_eq!((&started["id"], &started["status"]), (&json!(id), &json!("IN_PROGRESS")));
    app.script.open();
    let ended: Value = serde_json::from_str(&receiver.receive().1).unwrap();
    assert_eq!((&ended["id"], &ended["status"]), (&json!(id), &json!("COMPLETED")));
}

#[test]
fn a_waiting_webhook_is_delivered_after_a_restart() {
    let mut app = app();
    let receiver = Receiver::new();
    app.configure(|config| config.allow_addresses = AllowedAddresses::default());
    app.restart();
    // This address is not allowed yet, so the next try is 10 s later.
    let id = app.submit(&body(&receiver, json!(null)));
    app.wait(&id);
    app.configure(|config| config.allow_addresses = "127.0.0.1".parse().unwrap());
    app.stop();
    app.advance_ms(10_000);
    app.restart();
    let told: Value = serde_json::from_str(&receiver.receive().1).unwrap();
    assert_eq!((&told["id"], &told["status"]), (&json!(id), &json!("COMPLETED")));
}

#[test]
fn a_message_leaves_out_what_is_too_large_and_goes_with_its_job() {
    let (app, receiver) = (app(), Receiver::new());
    let long = "a cat, ".repeat(6_000);
    let input = json!({"prompt": long, "negative_prompt": long, "num_outputs": 2});
    let id = app.submit(&json!({"input": input, "webhook": receiver.url()}));
    let told: Value = serde_json::from_str(&receiver.receive().1).unwrap();
    let left_out = json!("(left out: 42000 bytes)");
    let short = json!({"prompt": left_out, "negative_prompt": left_out, "num_outputs": 2});
    assert_eq!((&told["id"], &told["status"], &told["input"]), (&json!(id), &json!("COMPLETED"), &short));
    assert_eq!(app.status(&id).json()["input"], input);

    // Nobody answers.
    let url = format!("{}?key=url-marker", receiver.url());
    drop(receiver);
    let id = app.submit(&json!({"input": {"prompt": "prompt-marker"}, "webhook": url}));
    app.wait(&id);
    let found = |marker: &str| on_disk(app.data_dir(), marker);
    assert!(found("prompt-marker") && found("url-marker"));
    app.advance_ms(31 * 60 * 1000);
    wait_until_forgotten(&app);
    let deadline = Instant::now() + Duration::from_secs(30);
    while found("prompt-marker") || found("url-marker") {
        assert!(Instant::now() < deadline, "the sweeper empties the log");
        sleep(Duration::from_millis(50));
    }
}

fn on_disk(dir: &Path, marker: &str) -> bool {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file());
    files
        .map(|path| fs::read(path).unwrap())
        .any(|bytes| bytes.windows(marker.len()).any(|window| window == marker.as_bytes()))
}

#[test]
fn an_invalid_webhook_is_refused() {
    let app = app();
    for (webhook, events, error) in [
        (json!("dog"), json!(null), "webhook should be an absolute URL"),
        (json!("file:///etc/passwd"), json!(null), "webhook should be an http or https URL."),
        (json!(7), json!(null), "webhook should be a URL in a string."),
        (json!("http://a/"), json!(["begin"]), "webhookEvents does not meet the constraints."),
    ] {
        let body = json!({"input": {"prompt": "a dog"}, "webhook": webhook, "webhookEvents": events});
        let refused = app.post("/v2/stable-diffusion-v1/run", body);
        assert_eq!(refused.status, 400);
        assert!(refused.error().starts_with(error), "{}", refused.error());
    }
    let mut null = prompt("a dog");
    null["webhook"] = json!(null);
    app.submit(&null);
}
