//! The Model Context Protocol: chat programs draw through tools. It is served over Streamable HTTP at `/mcp`.
//!
//! `rmcp`, the protocol's own library, knows its messages, versions and headers. `exchange` carries HTTP to it and back,
//! `message` reads what must be known before, and `sessions` finds the request that a client cancels. `tool_server`
//! answers: `tools` says which tools there are, a file each, and `answer` writes what came out.

mod answer;
mod error;
mod exchange;
mod message;
mod sessions;
mod tool_server;
mod tools;
mod wait;

use actix_web::http::Method;
use actix_web::{guard, web};

use self::error::McpError;
pub(super) use self::exchange::Exchange;
use super::request::{Operation, Surface};
use super::surface::Dialect;

/// The surface as a type.
pub struct Mcp;

impl Dialect for Mcp {
    const SURFACE: Surface = Surface::Mcp;
    type Error = McpError;
}

/// Clients get `/mcp`. The OpenAPI document describes paths below `/v2` and `/v1`.
const PREFIXES: [&str; 3] = ["", "/v2", "/v1"];

/// `/mcp`, and nothing below. The server never speaks first, so there is no stream to GET; the protocol wants 405 then.
pub(super) fn routes(config: &mut web::ServiceConfig, exchange: &web::Data<Exchange>) {
    let is = |method: Method| guard::fn_guard(move |context| context.head().method == method);
    for prefix in PREFIXES {
        config.service(
            web::resource(format!("{prefix}{}", Surface::Mcp.path()))
                .app_data(exchange.clone())
                .app_data(Operation::RunSync)
                .route(web::route().guard(is(Method::POST)).to(exchange::post))
                .route(web::route().guard(is(Method::DELETE)).to(exchange::end_session))
                .default_service(web::to(|| async { Err::<&str, _>(error::other_method()) })),
        );
    }
}
