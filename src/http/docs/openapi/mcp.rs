//! The Model Context Protocol: the messages that are posted to `/mcp`. What they may say is the protocol's; what the tools
//! take, `tools/list` tells.

use rmcp::model::ProtocolVersion;
use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, Object, ObjectBuilder, Required, Response, ResponseBuilder,
};

use super::schema::{choice, integer, object, reference, text};
use super::surface::{DRAWING, keyed, refusing};
use crate::http::request::{Api, Surface};

const TAG: &str = "MCP";
const MESSAGE: &str = "McpMessage";
const ANSWER: &str = "McpAnswer";
const ERROR: &str = "McpError";

pub(super) fn add_paths(paths: PathsBuilder, api: &Api) -> PathsBuilder {
    if !api.settings.surfaces.contains(Surface::Mcp) {
        return paths;
    }
    let mut item = PathItem::new(HttpMethod::Post, post());
    item.delete = Some(end().build());
    paths.path(Surface::Mcp.path(), item)
}

pub(super) fn add_schemas(components: ComponentsBuilder, api: &Api) -> ComponentsBuilder {
    if !api.settings.surfaces.contains(Surface::Mcp) {
        return components;
    }
    components.schema(MESSAGE, message()).schema(ANSWER, answer()).schema(ERROR, refusal())
}

fn post() -> OperationBuilder {
    // OpenAPI 3.1 cannot describe a stream of events, so this describes one.
    let event = object("One event").property("data", text("JSON: a message")).required("data").build();
    let answered = ResponseBuilder::new()
        .description(
            "The answer, in an event whose data is a message; events before it tell how far a tool is",
        )
        .content("text/event-stream", Content::new(Some(event)))
        .content("application/json", Content::new(Some(reference(ANSWER))))
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some("mcp"))
        .summary(Some("Send a message of the Model Context Protocol"))
        .tag(TAG)
        .description(Some(
            "One message of JSON-RPC 2.0, as Streamable HTTP carries it. `Accept` must name `application/json` and \
             `text/event-stream`. `initialize` answers a session, `tools/list` the tools, `tools/call` what a tool drew. A \
             client that closes its connection cancels what it draws.",
        ))
        .parameter(header("Mcp-Session-Id", text("The session, from the answer to `initialize`")))
        .parameter(header(
            "Mcp-Protocol-Version",
            choice("The version of the protocol", ProtocolVersion::KNOWN_VERSIONS.iter().map(ProtocolVersion::as_str)),
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some("Up to 20 MB."))
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(reference(MESSAGE))))
                .build(),
        ))
        .response("200", answered)
        .response("202", Response::new("The message needs no answer, or its request was cancelled"));
    refusing(
        keyed(operation),
        ERROR,
        DRAWING.into_iter().chain([
            ("400", "It is no message, or the version of the protocol is unknown"),
            ("403", "A page of another site sent it"),
            ("404", "No such session, or no such method"),
            ("406", "`Accept` does not name both types"),
            ("415", "`Content-Type` is not `application/json`"),
            ("500", "Internal server error"),
        ]),
    )
}

fn end() -> OperationBuilder {
    let operation = OperationBuilder::new()
        .operation_id(Some("mcp-end"))
        .summary(Some("End a session"))
        .tag(TAG)
        .description(Some("Ends the session, and cancels what its requests draw."))
        .parameter(header("Mcp-Session-Id", text("The session to end")).required(Required::True))
        .response("204", Response::new("The session is ended"));
    refusing(
        keyed(operation),
        ERROR,
        [
            ("400", "No session is named"),
            ("401", "No valid API key"),
            ("403", "A page of another site sent it"),
            ("404", "No such session"),
            ("405", "Wrong method: `Allow` lists the right ones"),
            ("429", "Too many requests in 10 seconds or at once"),
        ],
    )
}

fn header(name: &str, schema: ObjectBuilder) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(schema.build()))
}

fn open(about: &str) -> ObjectBuilder {
    object(about).additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

/// A number or a text.
fn id(about: &str, may_be_null: bool) -> Object {
    let mut types = vec![Type::Integer, Type::String];
    types.extend(may_be_null.then_some(Type::Null));
    ObjectBuilder::new().schema_type(SchemaType::Array(types)).description(Some(about)).build()
}

fn version() -> ObjectBuilder {
    choice("The version of JSON-RPC", ["2.0"])
}

fn message() -> Object {
    object("A request, or a notification, which has no `id`")
        .property("jsonrpc", version())
        .property("id", id("By which the answer is known", false))
        .property("method", text("What to do, such as `tools/call`"))
        .property("params", open("The method's own parameters"))
        .required("jsonrpc")
        .required("method")
        .examples([json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "generate_image", "arguments": { "prompt": "a red fox in the snow" } },
        })])
        .build()
}

fn answer() -> Object {
    object("The answer to a request: `result`, or `error`")
        .property("jsonrpc", version())
        .property("id", id("That of the request", true))
        .property("result", open("What the method answers"))
        .property("error", error())
        .required("jsonrpc")
        .build()
}

fn refusal() -> Object {
    object("Why the message was refused")
        .property("jsonrpc", version())
        .property("id", id("That of the request, or null", true))
        .property("error", error())
        .required("jsonrpc")
        .required("error")
        .build()
}

fn error() -> Object {
    open("The error")
        .property("code", integer("JSON-RPC's code"))
        .property("message", text("One sentence"))
        .required("code")
        .required("message")
        .build()
}
