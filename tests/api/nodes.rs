//! One of several servers behind a balancer: its number in ids and headers, secrets that all share, the agent, draining.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::domain::Node;

use crate::client::Request;
use crate::helpers::{TestApp, keyed, prompt};

fn node(number: &str) -> Node {
    number.parse().unwrap()
}

fn start_node(number: &str) -> TestApp {
    TestApp::with(|config| {
        (config.queue.node, config.http.node) = (Some(node(number)), Some(node(number)));
        config.manage_models = true;
        config.signing_key = Some([7; 32]);
    })
}

/// The first four digits of the last group.
fn digits(id: &str) -> &str {
    &id.rsplit('-').next().unwrap()[..4]
}

#[test]
fn every_id_that_a_client_gets_carries_the_number() {
    let app = start_node("10");
    let run = app.submit(&prompt("a dog"));
    let sync = app.post("/v2/stable-diffusion-v1/runsync", prompt("a dog"));
    assert_eq!((digits(&run), digits(&sync.id())), ("000a", "000a"));
    let drawn =
        app.post("/v1/images/generations", json!({"prompt": "a dog", "response_format": "url"})).json();
    let url = drawn["data"][0]["url"].as_str().unwrap();
    let id = url.split('/').find(|part| part.split('-').count() >= 5).unwrap();
    assert_eq!(digits(id), "000a", "{url}");
    let task = app.post("/v2/library/pull", json!({"name": "https://models.invalid/model.safetensors"}));
    assert_eq!((task.status, digits(task.json()["id"].as_str().unwrap())), (202, "000a"));
    let version = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}});
    let begin = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": version});
    let session = keyed("POST", "/mcp")
        .header("Content-Type", "application/json")
        .header("Accept", "application/json, text/event-stream")
        .body(begin.to_string())
        .send(app.port);
    assert_eq!(digits(session.header("mcp-session-id").unwrap()), "000a");
}

#[test]
fn every_answer_says_which_node_it_comes_from() {
    let app = start_node("65535");
    for target in ["/v2/stable-diffusion-v1/health", "/nowhere", "/ready", "/"] {
        assert_eq!(app.get(target).header("x-stablehand-node"), Some("ffff"), "{target}");
        assert_eq!(Request::new("GET", target).send(app.port).header("x-stablehand-node"), Some("ffff"));
    }
    let single = TestApp::start();
    assert_eq!(single.get("/ready").header("x-stablehand-node"), None);
}

#[test]
fn jobs_of_before_the_number_changed_stay() {
    let mut app = TestApp::start();
    let before = app.submit(&prompt("a dog"));
    app.wait(&before);
    for number in ["1", "2"] {
        app.configure(|config| config.queue.node = Some(node(number)));
        app.restart();
        assert_eq!(app.status(&before).json()["status"], "COMPLETED");
        assert_eq!(digits(&app.submit(&prompt("a cat"))), format!("000{number}"));
    }
}

#[test]
fn a_page_of_another_nodes_list_is_refused() {
    let app = start_node("3");
    (0..2).for_each(|_| _ = app.submit(&prompt("a dog")));
    let requests = "/v2/stable-diffusion-v1/requests?limit=1";
    let page = app.get(requests).json();
    let cursor = page["cursor"].as_str().unwrap();
    assert!(cursor.ends_with(".0003"), "{cursor}");
    assert_eq!(app.get(&format!("{requests}&cursor={cursor}")).json()["cursor"], Value::Null);
    let other = start_node("4").get(&format!("{requests}&cursor={cursor}"));
    assert_eq!((other.status, other.error().contains("another server's list")), (400, true));
}

#[test]
fn a_url_that_one_node_signed_is_valid_at_another() {
    let (one, other) = (start_node("1"), start_node("2"));
    let drawn = one.post("/v2/stable-diffusion-v1/runsync", prompt("a dog")).json();
    let url = drawn["output"][0]["image"].as_str().unwrap();
    let (_, target) = url.split_once(&one.port.to_string()).unwrap();
    let get = |app: &TestApp, target: &str| Request::new("GET", target).send(app.port).status;
    assert_eq!(get(&one, target), 200);
    // The signature is right, and the picture is not there.
    assert_eq!(get(&other, target), 404);
    assert_eq!(get(&other, &target.replace("signature=", "signature=A")), 403);
    let stranger = TestApp::with(|config| config.signing_key = Some([8; 32]));
    assert_eq!(get(&stranger, target), 403);
    // No key was made that nobody uses.
    assert!(!one.data_dir().join("signing-key").exists());
}

/// What the agent answers.
fn ask(agent: SocketAddr) -> String {
    let mut line = String::new();
    TcpStream::connect(agent).unwrap().read_to_string(&mut line).unwrap();
    line
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_agents_weight_falls_while_jobs_wait() {
    let agent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = TestApp::with(|config| config.agent_listen = Some(agent));
    until("a free node has its whole weight", || ask(agent) == "100%\n");
    app.script.hold();
    (0..3).for_each(|_| _ = app.submit(&prompt("a dog")));
    // The oldest job waits for 95 s.
    app.advance_ms(95_000);
    until("a busy node has little of it", || ask(agent) == "5%\n");
    app.script.open();
    until("it comes back", || ask(agent) == "100%\n");
}

#[test]
fn a_server_that_drains_finishes_what_it_has_and_takes_what_comes() {
    let agent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut app = TestApp::with(|config| config.agent_listen = Some(agent));
    let file = app.data_dir().join("drain");
    let ready = |app: &TestApp| Request::new("GET", "/ready").send(app.port).status;
    until("it is ready", || ready(&app) == 200);
    app.script.hold();
    let first = app.submit(&prompt("a dog"));
    fs::write(&file, "").unwrap();
    until("it drains", || ready(&app) == 503 && ask(agent) == "0%\n");
    until("it says so", || fs::read_to_string(&file).unwrap() == "draining\n");
    let late = app.submit(&prompt("a cat"));
    app.script.open();
    for id in [&first, &late] {
        assert_eq!(app.wait(id)["status"], "COMPLETED");
    }
    until("it is drained", || fs::read_to_string(&file).unwrap() == "drained\n");
    assert_eq!(app.status(&first).status, 200);
    fs::remove_file(&file).unwrap();
    until("it takes jobs again", || ready(&app) == 200 && ask(agent) == "100%\n");
    fs::write(&file, "").unwrap();
    until("it drains again", || ready(&app) == 503);
    app.restart();
    until("a restart ends that", || ready(&app) == 200);
    assert!(!file.exists());
}
