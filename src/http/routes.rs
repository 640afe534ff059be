//! The route table: every route of the server, once.

use actix_web::dev::HttpServiceFactory;
use actix_web::{FromRequest, Handler, Resource, Responder, web};

use super::operation::Methods;
use super::{
    ApiError, Operation, cancel, docs, events, health, image, index, metrics, openapi, purge_queue, requests,
    retry, run, runsync, status, status_sync, stream,
};

/// All routes. Published code mixes `/v1` and `/v2`, so both lead to the same operations.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(on("/", Methods::Get, index::index))
        .service(on("/docs", Methods::Get, docs::docs))
        .service(on("/docs/page.css", Methods::Get, docs::style))
        .service(on("/docs/page.js", Methods::Get, docs::script))
        .service(on("/openapi.json", Methods::Get, openapi::openapi))
        .service(on("/metrics", Methods::Get, metrics::metrics))
        .service(endpoint("/v1/{endpoint}"))
        .service(endpoint("/v2/{endpoint}"))
        .default_service(web::to(no_route));
}

/// The operations of one endpoint.
fn endpoint(prefix: &'static str) -> impl HttpServiceFactory {
    web::scope(prefix)
        .service(operation(Operation::Run, run::run))
        .service(operation(Operation::RunSync, runsync::runsync))
        .service(operation(Operation::Status, status::status))
        .service(operation(Operation::StatusSync, status_sync::status_sync))
        .service(operation(Operation::Stream, stream::stream))
        .service(operation(Operation::Events, events::events))
        .service(operation(Operation::EventsUrl, events::url))
        .service(operation(Operation::Cancel, cancel::cancel))
        .service(operation(Operation::Retry, retry::retry))
        .service(operation(Operation::PurgeQueue, purge_queue::purge_queue))
        .service(operation(Operation::Requests, requests::requests))
        .service(operation(Operation::Health, health::health))
        .service(on("/images/{id}/{index}.png", Methods::Get, image::image))
        .default_service(web::to(no_route))
}

/// One operation of the contract, where the contract has it.
fn operation<F, Args>(operation: Operation, answer: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    on(operation.path(), operation.methods(), answer).app_data(operation)
}

/// One route: its operation for the methods that it takes, 405 for all others.
fn on<F, Args>(path: &'static str, methods: Methods, operation: F) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    web::resource(path).route(web::route().guard(methods.guard()).to(operation)).default_service(web::to(
        move || async move { Err::<&str, _>(ApiError::MethodNotAllowed { allowed: methods.names() }) },
    ))
}

async fn no_route() -> Result<&'static str, ApiError> {
    Err(ApiError::NO_ROUTE)
}
