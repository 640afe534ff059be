//! The Model Context Protocol: whole messages, as chat programs send and read them.

mod hostile;
mod protocol;
mod tools;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Request;
use crate::helpers::{KEY, TestApp};

const ENDPOINT: &str = "/mcp";
const VERSION: &str = "2025-06-18";
const ACCEPT: &str = "application/json, text/event-stream";

fn request(id: impl Into<Value>, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params})
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "test", "version": "1"});
    request(0, "initialize", json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client}))
}

fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    request(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// A POST of any body, with the headers that every client sends.
fn posted(body: impl Into<Vec<u8>>) -> Request {
    Request::new("POST", ENDPOINT)
        .header("Authorization", &format!("Bearer {KEY}"))
        .header("Content-Type", "application/json")
        .header("Accept", ACCEPT)
        .body(body)
}

/// An answer that is read message by message.
struct Answer {
    reader: BufReader<TcpStream>,
    head: String,
}

impl Answer {
    fn open(app: &TestApp, message: &Value, headers: &[(&str, &str)]) -> Self {
        let body = message.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            stream,
            "POST {ENDPOINT} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAccept: {ACCEPT}\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n",
            body.len()
        )
        .unwrap();
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n").unwrap();
        }
        write!(stream, "\r\n{body}").unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Self { reader, head: head.to_lowercase() }
    }

    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The next message: an event's data, or the whole body. None at the end.
    fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            let text = line.strip_prefix("data:").unwrap_or(&line).trim();
            if text.starts_with('{') {
                return Some(serde_json::from_str(text).unwrap());
            }
        }
    }
}

/// The last message of the answer.
fn ask(app: &TestApp, message: &Value) -> Value {
    let mut answer = Answer::open(app, message, &[]);
    let mut last = None;
    while let Some(message) = answer.next() {
        last = Some(message);
    }
    last.unwrap_or_else(|| panic!("no answer to {message}"))
}

/// The result of a tool.
pub fn result(app: &TestApp, tool: &str, arguments: Value) -> Value {
    let answer = ask(app, &call(1, tool, arguments));
    assert_eq!(answer["id"], 1, "{answer}");
    answer["result"].clone()
}

/// The sentence of a tool that failed.
fn failure(app: &TestApp, tool: &str, arguments: Value) -> String {
    let result = result(app, tool, arguments);
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(result["content"].as_array().unwrap().len(), 1);
    result["content"][0]["text"].as_str().unwrap().to_owned()
}

/// Begins a session and returns its id.
fn begin(app: &TestApp) -> String {
    let answer = Answer::open(app, &initialize(VERSION), &[]);
    answer.header("mcp-session-id").unwrap().to_owned()
}

/// Waits until the endpoint has no job any more.
fn wait_until_forgotten(app: &TestApp) {
    let jobs = || app.get("/v2/stable-diffusion-v1/health").json()["jobs"].clone();
    while jobs().as_object().unwrap().values().any(|count| count.as_u64() != Some(0)) {
        std::thread::yield_now();
    }
}
