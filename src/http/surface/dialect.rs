//! What a surface is: its name, its form of errors, and routes that answer in it.

use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError, guard, web};

use super::FieldError;
use crate::http::request::{ApiError, Methods, Operation, RouteName, Surface};

/// One surface, as a type.
pub trait Dialect: 'static {
    const SURFACE: Surface;
    /// Writes every refusal in the form that the surface's clients read.
    type Error: ResponseError + From<ApiError> + From<FieldError> + 'static;
}

/// One route of a surface: `handler` for the methods that it accepts, a 405 in the surface's form for all others. The
/// limits count its requests as `operation`.
pub fn route<D: Dialect, F, Args>(
    path: String,
    methods: Methods,
    operation: Operation,
    handler: F,
) -> Resource
where
    F: Handler<Args>,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    let name = RouteName::new(&path);
    web::resource(path)
        .app_data(name)
        .app_data(operation)
        .route(web::route().guard(methods.guard()).to(handler))
        .default_service(web::to(move || async move { Err::<&str, D::Error>(methods.refusal().into()) }))
}

/// The answer to clients that ask with OPTIONS whether a route is there. It needs no key.
pub fn options() -> actix_web::Route {
    web::route().guard(guard::Options()).to(|| async { HttpResponse::NoContent().finish() })
}
