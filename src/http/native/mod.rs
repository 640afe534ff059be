//! The native API: the hosted endpoint's contract, under `/v1/{endpoint}` and `/v2/{endpoint}`.
//!
//! Each operation has a file of its own, named like its route. `submission` reads the body of run and runsync,
//! and `provider` an `input` in the words of the AI SDK's provider.

mod cancel;
mod delete;
mod events;
mod health;
mod image;
mod model;
mod paths;
mod provider;
mod purge_queue;
mod requests;
mod retry;
mod run;
mod runsync;
mod status;
mod status_sync;
mod stream;
mod submission;
mod tokens;
mod wait;

use actix_web::http::header::ContentType;
use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, Scope, web};

pub(super) use requests::{DEFAULT_LIMIT, MAX_LIMIT};
pub(super) use wait::{DEFAULT_MS, MAX_MS, MIN_MS};

use super::request::{Methods, Operation, no_route, route_below};
use super::surface::files;

/// What metrics call this API.
const NAME: &str = "native";

/// The routes of one endpoint.
pub(super) fn endpoint(prefix: &'static str) -> Scope {
    web::scope(prefix)
        .service(operation(prefix, Operation::Run, run::run))
        .service(operation(prefix, Operation::RunSync, runsync::runsync))
        .service(operation(prefix, Operation::Status, status::status))
        .service(operation(prefix, Operation::StatusSync, status_sync::status_sync))
        .service(operation(prefix, Operation::Stream, stream::stream))
        .service(operation(prefix, Operation::Events, events::events))
        .service(operation(prefix, Operation::EventsUrl, events::url))
        .service(operation(prefix, Operation::Cancel, cancel::cancel))
        .service(operation(prefix, Operation::Retry, retry::retry))
        .service(operation(prefix, Operation::PurgeQueue, purge_queue::purge_queue))
        .service(operation(prefix, Operation::Requests, requests::requests))
        .service(operation(prefix, Operation::Health, health::health))
        .service(operation(prefix, Operation::Delete, delete::delete))
        .service(operation(prefix, Operation::Model, model::model))
        .service(operation(prefix, Operation::Tokens, tokens::tokens))
        .service(route_below(prefix, "/images/{id}/{index}.png", Methods::Get, image::image))
        .service(route_below(prefix, "/images/{id}/{index}/{finish}", Methods::Get, files::file))
        .default_service(web::to(no_route))
}

/// The route of an operation. The request carries the operation, so that limits know what to count.
fn operation<F, Args>(prefix: &str, operation: Operation, handler: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    route_below(prefix, operation.path(), operation.methods(), handler).app_data(operation)
}

/// A 200 whose body is JSON text already.
fn json_text(body: String) -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(body)
}
