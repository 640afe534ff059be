//! A message of JSON-RPC, as far as HTTP must know it. `rmcp` reads it again, without the arguments of a tool: those may
//! have megabytes of pictures, and `rmcp` reads on the server's threads.

use std::sync::{Arc, Mutex, PoisonError};

use rmcp::model::RequestId;
use serde_json::{Map, Value};

use super::McpError;
use crate::http::request::body::Held;
use crate::http::request::{ApiError, has_few_values};

/// One message.
pub struct Message {
    /// The message, with `{}` for the arguments of a tool.
    pub json: Vec<u8>,
    pub arguments: Arguments,
    pub kind: Kind,
}

/// What HTTP must know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Initialize,
    Request(RequestId),
    /// The client wants no answer to this request any more.
    Cancel(RequestId),
    Other,
}

/// The arguments of a tool, and the memory that is counted for them. They travel beside the message; whoever takes them has
/// them.
#[derive(Debug, Clone, Default)]
pub struct Arguments(Arc<Mutex<(Map<String, Value>, Held)>>);

impl Arguments {
    pub fn take(&self) -> (Map<String, Value>, Held) {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Counts this memory until the arguments are used.
    pub fn hold(&self, held: Held) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = held;
    }
}

impl Message {
    /// Reads a body. Lists of messages are refused: the protocol has none since 2025-06-18.
    pub fn read(body: &[u8]) -> Result<Self, McpError> {
        if !has_few_values(body) {
            return Err(ApiError::TooManyValues.into());
        }
        let mut message = match serde_json::from_slice(body).map_err(McpError::NoJson)? {
            Value::Object(message) => message,
            Value::Array(_) => {
                return Err(McpError::BadMessage("Send one message at a time: lists are not accepted."));
            }
            _ => return Err(McpError::BadMessage("The message should be a JSON object.")),
        };
        let kind = kind(&message);
        let arguments = take_arguments(&mut message).unwrap_or_default();
        let json = Value::Object(message).to_string().into_bytes();
        Ok(Self { json, arguments: Arguments(Arc::new(Mutex::new((arguments, Held::default())))), kind })
    }
}

fn kind(message: &Map<String, Value>) -> Kind {
    let id = |value: Option<&Value>| serde_json::from_value::<RequestId>(value?.clone()).ok();
    match message.get("method").and_then(Value::as_str) {
        Some("initialize") => Kind::Initialize,
        Some("notifications/cancelled") => {
            let named = message.get("params").and_then(|params| params.get("requestId"));
            id(named).map_or(Kind::Other, Kind::Cancel)
        }
        Some(_) => id(message.get("id")).map_or(Kind::Other, Kind::Request),
        None => Kind::Other,
    }
}

/// Takes the arguments out of a call, and leaves `{}`.
fn take_arguments(message: &mut Map<String, Value>) -> Option<Map<String, Value>> {
    if message.get("method").and_then(Value::as_str) != Some("tools/call") {
        return None;
    }
    match message.get_mut("params")?.get_mut("arguments")? {
        Value::Object(arguments) => Some(std::mem::take(arguments)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: &Value) -> Message {
        Message::read(message.to_string().as_bytes()).ok().unwrap()
    }

    #[test]
    fn a_call_travels_without_its_arguments() {
        let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": "generate_image", "arguments": {"prompt": "a fox"}, "_meta": {"progressToken": 1}}});
        let message = read(&call);
        assert_eq!(message.kind, Kind::Request(RequestId::Number(7)));
        assert_eq!(Value::Object(message.arguments.take().0), json!({"prompt": "a fox"}));
        assert!(message.arguments.take().0.is_empty());
        let mut expected = call;
        expected["params"]["arguments"] = json!({});
        assert_eq!(serde_json::from_slice::<Value>(&message.json).unwrap(), expected);
    }

    #[test]
    fn odd_messages_are_left_to_the_protocol() {
        for (message, kind) in [
            (json!({"method": "initialize", "id": 1}), Kind::Initialize),
            (
                json!({"method": "notifications/cancelled", "params": {"requestId": "a"}}),
                Kind::Cancel(RequestId::String("a".into())),
            ),
            (json!({"method": "notifications/cancelled", "params": {"requestId": {}}}), Kind::Other),
            (json!({"method": "notifications/cancelled", "params": []}), Kind::Other),
            (json!({"method": "tools/call", "id": null, "params": {"arguments": [1]}}), Kind::Other),
            (json!({"method": "tools/call", "id": 1.5, "params": 3}), Kind::Other),
            (json!({"method": 3, "id": 1}), Kind::Other),
            (json!({}), Kind::Other),
        ] {
            assert_eq!(read(&message).kind, kind, "{message}");
        }
        for body in
            ["", "[]", "3", "\"secret\"", "{\"secret\"", "[{\"method\": \"ping\"}]", &"[".repeat(100_000)]
        {
            let sentence = Message::read(body.as_bytes()).err().unwrap().to_string();
            assert!(!sentence.contains("secret"), "{sentence}");
        }
    }
}
