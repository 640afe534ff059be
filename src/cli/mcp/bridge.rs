//! Carries messages: a line of standard input becomes a POST, and what is answered becomes lines of standard output.
//! Nothing else is ever written there.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::files;

/// The longest line: a picture in base64 and room for the rest.
const MAX_LINE: u64 = 32 * 1024 * 1024;
/// Requests that are being answered at the same time. Further ones wait.
const AT_ONCE: usize = 64;
/// How long answers are still waited for when the chat program has closed its side.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SESSION_ID: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";
/// The key in `_meta` by which requests of newer clients say their version.
const VERSION_OF_REQUEST: &str = "io.modelcontextprotocol/protocolVersion";
/// The version with which a session begins that the chat program did not begin.
const OWN_VERSION: &str = "2025-06-18";
/// JSON-RPC's codes.
const PARSE_ERROR: i32 = -32_700;
const INTERNAL_ERROR: i32 = -32_603;

/// Between one chat program and one server.
pub(super) struct Bridge {
    url: String,
    authorization: Option<String>,
    agent: Agent,
    link: Mutex<Link>,
    /// Held while a session begins, so that requests at the same time have the same one.
    beginning: Mutex<()>,
    running: Mutex<HashSet<String>>,
    has_ended: Condvar,
}

/// What the server and the chat program agreed on.
#[derive(Default)]
struct Link {
    has_begun: bool,
    session: Option<String>,
    version: Option<String>,
    /// How the chat program began, in case that the server forgets the session. Newer versions of the protocol begin with
    /// nothing.
    beginning: Option<Value>,
}

impl Bridge {
    pub(super) fn new(server: &str, key: Option<String>, roots: RootCerts) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .max_redirects(0)
            // The key goes to this server only.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Self {
            url: format!("{server}/mcp"),
            authorization: key.map(|key| format!("Bearer {key}")),
            agent: config.into(),
            link: Mutex::default(),
            beginning: Mutex::default(),
            running: Mutex::default(),
            has_ended: Condvar::new(),
        }
    }

    /// Carries until the chat program closes its side. Then it ends the session, which cancels what is being drawn.
    pub(super) fn carry(self: Arc<Self>, input: impl BufRead) {
        let mut input = input;
        loop {
            let mut line = Vec::new();
            match input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") => {
                    refuse(&Value::Null, PARSE_ERROR, "The message is too long.");
                    if skip_line(&mut input).is_err() {
                        break;
                    }
                }
                Ok(_) if line.trim_ascii().is_empty() => {}
                Ok(_) => match serde_json::from_slice::<Value>(&line) {
                    Ok(message @ Value::Object(_)) => self.take(message),
                    Ok(_) => {
                        refuse(&Value::Null, PARSE_ERROR, "Send one message, a JSON object, on each line.");
                    }
                    Err(error) => {
                        refuse(
                            &Value::Null,
                            PARSE_ERROR,
                            &format!("The message is not valid JSON: {error}."),
                        );
                    }
                },
            }
        }
        let is_busy = |running: &mut HashSet<String>| !running.is_empty();
        drop(self.has_ended.wait_timeout_while(self.running(), LAST_ANSWERS, is_busy));
        let session = self.link().session.take();
        if let Some(session) = session {
            let request = self.agent.delete(&self.url).header(SESSION_ID, session);
            let _ = self.authorized(request).call();
        }
    }

    /// Takes one message from the chat program. What needs time goes on in a thread of its own.
    fn take(self: &Arc<Self>, message: Value) {
        let method = message["method"].as_str().unwrap_or_default();
        match (method, message.get("id")) {
            // The session must be there before the next message.
            ("initialize", Some(id)) => {
                let id = id.clone();
                *self.link() = Link { beginning: Some(message.clone()), ..Link::default() };
                self.answer(&id, message);
            }
            ("notifications/cancelled", _) => {
                // Its answer ends without a result; that is no fault then.
                self.running().remove(&message["params"]["requestId"].to_string());
                self.notify(&message);
            }
            (_, None) => self.notify(&message),
            (_, Some(id)) => {
                let id = id.clone();
                let mut running = self.running();
                while running.len() >= AT_ONCE {
                    running = self.has_ended.wait(running).unwrap_or_else(PoisonError::into_inner);
                }
                running.insert(id.to_string());
                drop(running);
                let bridge = Arc::clone(self);
                let spawned = thread::Builder::new().spawn(move || {
                    bridge.answer(&id, message);
                    bridge.running().remove(&id.to_string());
                    bridge.has_ended.notify_one();
                });
                if let Err(error) = spawned {
                    tracing::error!(%error, "no thread for a request");
                }
            }
        }
    }

    fn notify(&self, message: &Value) {
        if let Err(sentence) = self.post(message) {
            tracing::warn!(reason = sentence, "a notification did not reach the server");
        }
    }

    /// Sends a request, and writes all that is answered.
    fn answer(&self, id: &Value, mut message: Value) {
        if let Err(sentence) = files::put_in(&mut message) {
            let result = json!({ "content": [{ "type": "text", "text": sentence }], "isError": true });
            return write(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
        }
        let lists_tools = message["method"] == "tools/list";
        let is_initialize = message["method"] == "initialize";
        let answered = self.post(&message).and_then(|response| {
            self.read(response, |mut answer| {
                let is_last = answer.get("result").is_some() || answer.get("error").is_some();
                if lists_tools {
                    files::announce(&mut answer);
                }
                if is_initialize && let Some(version) = answer["result"]["protocolVersion"].as_str() {
                    self.link().version = Some(version.to_owned());
                }
                write(&answer);
                is_last
            })
        });
        match answered {
            Ok(true) => {}
            Ok(false) if !is_initialize && !self.running().contains(&id.to_string()) => {}
            Ok(false) => refuse(id, INTERNAL_ERROR, "The server closed the connection before it answered."),
            Err(sentence) => refuse(id, INTERNAL_ERROR, &sentence),
        }
    }

    /// Sends a message. If the server has forgotten the session, as after a restart, begins a new one and sends it again.
    fn post(&self, message: &Value) -> Result<Response<Body>, String> {
        if message["method"] == "initialize" {
            return self.send(message);
        }
        self.begin()?;
        let used = self.link().session.clone();
        let response = self.send(message)?;
        if response.status().as_u16() != 404 || used.is_none() {
            return Ok(response);
        }
        let mut link = self.link();
        if link.session == used {
            link.has_begun = false;
        }
        drop(link);
        self.begin()?;
        self.send(message)
    }

    /// Begins a session, if there is none: as the chat program began, or as one that begins with nothing. With a session,
    /// the server knows which request is cancelled.
    fn begin(&self) -> Result<(), String> {
        let _turn = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if self.link().has_begun {
            return Ok(());
        }
        let own = || {
            let client = json!({ "name": "stablehand mcp", "version": env!("CARGO_PKG_VERSION") });
            let params = json!({ "protocolVersion": OWN_VERSION, "capabilities": {}, "clientInfo": client });
            json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params })
        };
        let beginning = self.link().beginning.clone().unwrap_or_else(own);
        let begun = self.send(&beginning)?;
        self.read(begun, |_| true)?;
        Ok(())
    }

    fn send(&self, message: &Value) -> Result<Response<Body>, String> {
        let request = self
            .agent
            .post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        let mut request = self.authorized(request);
        let is_initialize = message["method"] == "initialize";
        if !is_initialize {
            let link = self.link();
            let params = &message["params"];
            let version = params["_meta"][VERSION_OF_REQUEST].as_str().or(link.version.as_deref());
            let headers = [
                (SESSION_ID, link.session.as_deref()),
                (VERSION, version),
                // Newer versions of the protocol repeat these.
                ("mcp-method", message["method"].as_str()),
                ("mcp-name", params["name"].as_str().or(params["uri"].as_str())),
            ];
            for (name, value) in headers {
                if let Some(value) = value.filter(|value| value.bytes().all(|byte| byte.is_ascii_graphic())) {
                    request = request.header(name, value);
                }
            }
        }
        let unreached = |error: ureq::Error| {
            format!("The server at {} cannot be reached: {error}. Start it with `stablehand`.", self.url)
        };
        let response = request.send(message.to_string()).map_err(unreached)?;
        if is_initialize && response.status().is_success() {
            let session = response.headers().get(SESSION_ID).and_then(|id| id.to_str().ok());
            let mut link = self.link();
            link.has_begun = true;
            link.session = session.map(str::to_owned);
        }
        Ok(response)
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }

    /// Gives all messages of an answer to `each`, which says whether it was the last one. Returns whether that came.
    fn read(&self, response: Response<Body>, mut each: impl FnMut(Value) -> bool) -> Result<bool, String> {
        let status = response.status();
        let is_stream = response
            .headers()
            .get("content-type")
            .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.starts_with("text/event-stream")));
        let mut body = BufReader::new(response.into_body().into_reader());
        if !is_stream || !status.is_success() {
            let mut text = String::new();
            let read = body.take(MAX_LINE).read_to_string(&mut text);
            let message = read.ok().and_then(|_| serde_json::from_str::<Value>(&text).ok());
            return match message {
                Some(message) if status.is_success() || message["id"] != Value::Null => Ok(each(message)),
                Some(message) => Err(self.explain(status.as_u16(), message["error"]["message"].as_str())),
                None if status.is_success() => Ok(false),
                None => Err(self.explain(status.as_u16(), Some(text.trim()).filter(|text| text.len() < 500))),
            };
        }
        let mut last_came = false;
        let mut line = String::new();
        loop {
            line.clear();
            match body.read_line(&mut line) {
                Ok(0) | Err(_) => return Ok(last_came),
                // An event of this server has one line of data.
                Ok(_) => {
                    let data = line.strip_prefix("data:").map(str::trim).unwrap_or_default();
                    if let Ok(message) = serde_json::from_str(data) {
                        last_came |= each(message);
                    }
                }
            }
        }
    }

    fn explain(&self, status: u16, sentence: Option<&str>) -> String {
        match status {
            401 => format!(
                "The server at {} wants an API key: give it with --key or STABLEHAND_API_KEY.",
                self.url
            ),
            404 if sentence.is_none_or(|sentence| sentence == "No such route.") => {
                format!("The server at {} has no tools: add mcp to its --surfaces.", self.url)
            }
            status => match sentence {
                Some(sentence) if !sentence.is_empty() => sentence.to_owned(),
                _ => format!("The server at {} answered with status {status}.", self.url),
            },
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, HashSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn refuse(id: &Value, code: i32, sentence: &str) {
    write(&json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": sentence } }));
}

/// Writes one message. A chat program that does not listen is about to end this process.
fn write(message: &Value) {
    let mut line = message.to_string();
    line.push('\n');
    let mut out = io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_line_is_skipped() {
        let mut input = io::Cursor::new(b"too long\nnext".to_vec());
        skip_line(&mut input).unwrap();
        let mut rest = String::new();
        input.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "next");
    }
}
