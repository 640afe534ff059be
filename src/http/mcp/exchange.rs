//! `POST /mcp` and `DELETE /mcp`: carries requests to `rmcp`'s Streamable HTTP service, and its answers back.
//!
//! `rmcp` serves each request by itself here, without its own sessions. Those keep every answer in memory in case that a
//! client comes back for it, have no limit, and go on drawing after a client is gone. So the sessions are our own, and
//! know only what a cancellation needs.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE, ContentEncoding, HeaderMap, HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use uuid::Uuid;

use super::message::{Kind, Message};
use super::sessions::Sessions;
use super::tool_server::ToolServer;
use super::{Mcp, McpError};
use crate::http::request::body::{self as request_body, Body};
use crate::http::request::{Api, ApiError, check_site};
use crate::http::surface::{Visitor, body};

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// Every header of the protocol's own begins so.
const OWN_HEADERS: &str = "mcp-";

/// The protocol's side of the server: one for all threads.
pub struct Exchange {
    service: StreamableHttpService<ToolServer, NeverSessionManager>,
    sessions: Sessions,
}

impl Exchange {
    pub fn new(api: web::Data<Api>) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_max_request_body_bytes(request_body::RUNSYNC_LIMIT);
        let sessions = Sessions::new(api.settings.node);
        let server = ToolServer::new(api);
        let manager = Arc::new(NeverSessionManager::default());
        let service = StreamableHttpService::new(move || Ok(server.clone()), manager, config);
        Self { service, sessions }
    }

    /// The session that a request names.
    fn session(&self, request: &HttpRequest, visitor: &Visitor<Mcp>) -> Result<Option<Uuid>, McpError> {
        let Some(id) = request.headers().get(&SESSION_ID) else { return Ok(None) };
        self.sessions.enter(id.to_str().unwrap_or_default(), visitor.caller).map(Some)
    }
}

pub async fn post(
    api: web::Data<Api>,
    exchange: web::Data<Exchange>,
    visitor: Visitor<Mcp>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, McpError> {
    // The protocol wants it even where a key was sent.
    check_site(&request, &api)?;
    let Body { bytes: sent, held } =
        request_body::read(&request, payload, request_body::RUNSYNC_LIMIT).await?;
    let message = body::on_body(sent, |sent| Message::read(&sent)).await?;
    message.arguments.hold(held);
    let session = match message.kind {
        // A client that initializes begins anew.
        Kind::Initialize => None,
        _ => exchange.session(&request, &visitor)?,
    };
    let running = match (session, &message.kind) {
        (Some(session), Kind::Cancel(cancelled)) => {
            exchange.sessions.cancel(session, cancelled);
            return Ok(HttpResponse::Accepted().finish());
        }
        (Some(session), Kind::Request(id)) => Some(exchange.sessions.run(session, id.clone())?),
        _ => None,
    };
    let is_initialize = message.kind == Kind::Initialize;
    let answering = exchange.service.handle(carry(request.headers(), message)?);
    let cancelled = running.as_ref().map(|running| running.cancelled.clone()).unwrap_or_default();
    // A cancelled request is dropped, as if the client had closed the connection: its tool ends, and with that its job.
    let Some(answer) = cancelled.run_until_cancelled(answering).await else {
        return Ok(HttpResponse::Accepted().finish());
    };
    let (parts, answered) = answer.into_parts();
    let mut response = HttpResponse::build(status(parts.status));
    for (name, value) in &parts.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    if is_initialize && parts.status.is_success() {
        let id = exchange.sessions.begin(visitor.caller)?;
        response.insert_header((SESSION_ID, id.to_string()));
    }
    let is_stream = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    if !is_stream {
        let is_plain = parts.headers.get("content-type").is_none_or(|kind| kind != "application/json");
        let whole = whole(answered).await;
        return match status(parts.status) {
            status if status.is_success() || !is_plain => Ok(response.body(whole)),
            status => Err(refused(status, &whole)),
        };
    }
    // Our own compression would hold events back to fill a buffer.
    response.insert_header(ContentEncoding::Identity);
    let held = (visitor.in_flight, running);
    let events = answered.into_data_stream().take_until(cancelled.cancelled_owned());
    Ok(response.streaming(events.map(move |chunk| {
        let _held = &held;
        chunk.map_err(|never| -> McpError { match never {} })
    })))
}

/// Ends a session, and with it what it draws.
pub async fn end_session(
    api: web::Data<Api>,
    exchange: web::Data<Exchange>,
    visitor: Visitor<Mcp>,
    request: HttpRequest,
) -> Result<HttpResponse, McpError> {
    check_site(&request, &api)?;
    let session = exchange.session(&request, &visitor)?;
    let unnamed = McpError::BadMessage("Name the session to end in the header Mcp-Session-Id.");
    exchange.sessions.end(session.ok_or(unnamed)?);
    Ok(HttpResponse::NoContent().finish())
}

/// The request as `rmcp` takes it. It lets in local hosts only, against pages that reach a server by a name of their own. This
/// server may have other names, and `Visitor` and `check_site` have kept such pages out already.
fn carry(headers: &HeaderMap, message: Message) -> Result<http::Request<Full<Bytes>>, McpError> {
    let is_carried = |name: &HeaderName| {
        *name == ACCEPT || *name == CONTENT_TYPE || name.as_str().starts_with(OWN_HEADERS)
    };
    let carried = headers.iter().filter(|(name, _)| is_carried(name));
    carried
        .fold(
            http::Request::post("/mcp").header("host", "localhost"),
            |request, (name, value): (_, &HeaderValue)| request.header(name.as_str(), value.as_bytes()),
        )
        .extension(message.arguments)
        .body(Full::new(message.json.into()))
        .map_err(|_| ApiError::Internal.into())
}

/// A refusal of `rmcp` that is plain text.
fn refused(status: StatusCode, text: &[u8]) -> McpError {
    let sentence = String::from_utf8_lossy(text).trim().trim_end_matches('.').to_owned();
    if status.is_server_error() {
        tracing::error!(%status, %sentence, "a message of MCP could not be served");
        return ApiError::Internal.into();
    }
    // It calls a message that cannot be read a body of another type.
    let is_unread =
        status == StatusCode::UNSUPPORTED_MEDIA_TYPE && sentence.starts_with("fail to deserialize");
    McpError::Protocol { status: if is_unread { StatusCode::BAD_REQUEST } else { status }, sentence }
}

fn status(status: http::StatusCode) -> StatusCode {
    StatusCode::from_u16(status.as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn whole(body: BoxBody<Bytes, std::convert::Infallible>) -> Bytes {
    match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(never) => match never {},
    }
}
