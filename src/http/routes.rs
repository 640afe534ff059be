//! The route table: every route of the server, once.

use actix_web::dev::HttpServiceFactory;
use actix_web::{FromRequest, Handler, Resource, Responder, guard, web};

use super::{
    ApiError, cancel, events, health, image, index, purge_queue, requests, retry, run, runsync, status,
    status_sync, stream,
};

/// All routes. Published code mixes `/v1` and `/v2`, so both lead to the same operations.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(on("/", Methods::Get, index::index))
        .service(endpoint("/v1/{endpoint}"))
        .service(endpoint("/v2/{endpoint}"))
        .default_service(web::to(no_route));
}

/// The operations of one endpoint.
fn endpoint(prefix: &'static str) -> impl HttpServiceFactory {
    web::scope(prefix)
        .service(on("/run", Methods::Post, run::run))
        .service(on("/runsync", Methods::Post, runsync::runsync))
        .service(on("/status/{id}", Methods::GetOrPost, status::status))
        .service(on("/status-sync/{id}", Methods::GetOrPost, status_sync::status_sync))
        .service(on("/stream/{id}", Methods::GetOrPost, stream::stream))
        .service(on("/events/{id}", Methods::Get, events::events))
        .service(on("/events/{id}/url", Methods::Post, events::url))
        .service(on("/cancel/{id}", Methods::GetOrPost, cancel::cancel))
        .service(on("/retry/{id}", Methods::Post, retry::retry))
        .service(on("/purge-queue", Methods::Post, purge_queue::purge_queue))
        .service(on("/requests", Methods::Get, requests::requests))
        .service(on("/health", Methods::Get, health::health))
        .service(on("/images/{id}/{index}.png", Methods::Get, image::image))
        .default_service(web::to(no_route))
}

/// What a route takes.
#[derive(Clone, Copy)]
enum Methods {
    /// And HEAD, which is GET without the body.
    Get,
    Post,
    GetOrPost,
}

impl Methods {
    fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::GetOrPost => "GET, HEAD, POST",
        }
    }

    fn guard(self) -> impl guard::Guard {
        let takes_get = !matches!(self, Self::Post);
        let takes_post = !matches!(self, Self::Get);
        guard::fn_guard(move |context| match context.head().method.as_str() {
            "GET" | "HEAD" => takes_get,
            "POST" => takes_post,
            _ => false,
        })
    }
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
