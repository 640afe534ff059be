//! Wraps every request: gives it an id, adds the headers that all answers have, writes a log line and counts it in the
//! metrics. Paths, queries, keys and bodies are never logged.

use std::time::Instant;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, web};
use tracing::Instrument as _;

use super::connection::{AnswerBody, Connection};
use super::request_id::{self, RequestId};
use super::trace::RequestTrace;
use super::{Api, RouteName};
use crate::domain::Node;

const NODE: HeaderName = HeaderName::from_static("x-stablehand-node");

pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<AnswerBody>, Error> {
    let start = Instant::now();
    let answering = request.conn_data::<Connection>().map(Connection::answer);
    let request_id = RequestId::from_headers(request.headers());
    // At error level, so that the span is on every line logged meanwhile, errors included.
    let span = tracing::error_span!("http", %request_id);
    let trace = RequestTrace::begin(&request);
    let mut response = trace.around(next.call(request)).instrument(span.clone()).await?;
    let api = response.request().app_data::<web::Data<Api>>().cloned();
    complete(response.headers_mut(), &request_id);
    if let Some(node) = api.as_ref().and_then(|api| api.settings.node) {
        name_node(response.headers_mut(), node);
    }

    let elapsed = start.elapsed();
    let request = response.request();
    let name = request.app_data::<RouteName>().cloned();
    let name = name.or_else(|| Some(RouteName::new(&request.match_pattern()?)));
    let route = name.as_ref().map_or("none", RouteName::as_str);
    let method = known(request.method().as_str());
    let status = response.status().as_u16();
    if let Some(api) = api {
        api.metrics.request(route, method, status, elapsed);
    }
    trace.end(method, route, status);
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    // Whoever watches the server asks every few seconds, for ever.
    let is_probe = route.ends_with("/live") || route.ends_with("/ready");
    span.in_scope(|| {
        if is_probe {
            tracing::debug!(method, route, status, ms, "request");
        } else {
            tracing::info!(method, route, status, ms, "request");
        }
    });
    Ok(response.map_body(|_, body| AnswerBody::new(BoxBody::new(body), answering)))
}

/// Adds the headers that the operation has not set itself.
fn complete(headers: &mut HeaderMap, request_id: &RequestId) {
    headers.insert(request_id::HEADER, request_id.header_value());
    let mut default = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Answers belong to one caller and are deleted in time; a cache would keep them.
    default(header::CACHE_CONTROL, "no-store");
    // Image URLs carry their signature.
    default(header::REFERRER_POLICY, "no-referrer");
}

/// Says which of several servers has answered, in the digits that its ids have.
fn name_node(headers: &mut HeaderMap, node: Node) {
    if let Ok(value) = HeaderValue::try_from(node.to_string()) {
        headers.insert(NODE, value);
    }
}

/// The method as logs and metrics name it. Clients can invent methods; those are `other`.
fn known(method: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}
