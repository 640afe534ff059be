//! An HTTP/1.1 client that sends any bytes, valid or not.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunked: bool,
}

impl Request {
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Keeps only the beginning of the body.
    pub fn cut(mut self, at: proptest::sample::Index) -> Self {
        self.body.truncate(at.index(self.body.len().max(1)));
        self
    }

    /// Sends the body in chunks, without a Content-Length.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// The bytes to send. The server closes the connection after its answer.
    fn bytes(&self, port: u16) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            let _ = write!(head, "Host: 127.0.0.1:{port}\r\n");
        }
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        let mut bytes;
        if self.chunked {
            head += "Transfer-Encoding: chunked\r\n\r\n";
            bytes = head.into_bytes();
            for chunk in self.body.chunks(64 * 1024) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        } else {
            if !self.body.is_empty() || self.method == "POST" {
                let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
            }
            head += "\r\n";
            bytes = head.into_bytes();
            bytes.extend(&self.body);
        }
        bytes
    }

    pub fn send(&self, port: u16) -> Response {
        exchange(port, &self.bytes(port))
    }
}

/// Sends raw bytes and reads one answer.
pub fn exchange(port: u16, bytes: &[u8]) -> Response {
    let mut stream = send(port, bytes);
    let mut answer = Vec::new();
    // Stop at the Content-Length: a server that has not read the whole request waits before it closes.
    let is_complete = |answer: &[u8]| {
        Response::parse(answer).is_some_and(|response| {
            let length = response.header("content-length").and_then(|length| length.parse().ok());
            bytes.starts_with(b"HEAD ") || length.is_some_and(|length: usize| response.body.len() >= length)
        })
    };
    let mut chunk = [0; 16 * 1024];
    while !is_complete(&answer) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => answer.extend(&chunk[..length]),
            // The process stood still meanwhile.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {} bytes", answer.len()),
        }
    }
    Response::parse(&answer).expect("an HTTP answer")
}

/// Sends raw bytes and reads all that comes back until the server closes.
pub fn exchange_all(port: u16, bytes: &[u8]) -> String {
    let mut answer = String::new();
    send(port, bytes).read_to_string(&mut answer).unwrap();
    answer
}

fn send(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    stream
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// Parses the bytes so far, once the head is complete.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON. The content type must be JSON too.
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The id of the job in the body.
    pub fn id(&self) -> String {
        self.json()["id"].as_str().unwrap_or_else(|| panic!("{}", self.text())).to_owned()
    }

    /// The sentence of an error body. The body must have no other field.
    pub fn error(&self) -> String {
        let body = self.json();
        let error = body["error"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned();
        assert_eq!(body, serde_json::json!({ "error": error }));
        assert!(!error.is_empty() && error.lines().count() == 1, "{error}");
        error
    }
}
