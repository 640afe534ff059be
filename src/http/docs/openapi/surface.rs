//! What the descriptions of all surfaces have in common: keys, answers, and the refusals of routes that draw.

use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, Response, ResponseBuilder};

use super::operations::{AZURE, BASIC, BEARER, PLAIN, header_for};
use super::schema::reference;

/// The refusals of every route that draws.
pub(super) const DRAWING: [(&str, &str); 6] = [
    ("401", "No valid API key"),
    ("405", "Wrong method: `Allow` lists the right ones"),
    ("408", "The body arrived too slowly"),
    ("413", "The body is too large"),
    ("429", "Too many requests in 10 seconds or at once, or the queue is full"),
    ("503", "The server cannot write to its disk now, receives too much at once, or is stopping"),
];

/// The operation, with a key in any of the ways that surfaces take it.
pub(super) fn keyed(operation: OperationBuilder) -> OperationBuilder {
    [BEARER, PLAIN, AZURE, BASIC].into_iter().fold(operation, |operation, scheme| {
        operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]))
    })
}

pub(super) fn json_body(about: &str, schema: &str) -> Response {
    ResponseBuilder::new()
        .description(about)
        .content("application/json", Content::new(Some(reference(schema))))
        .build()
}

/// The operation with refusals: their status and reason. `schema` is the surface's form of them.
pub(super) fn refusing<'a>(
    operation: OperationBuilder,
    schema: &str,
    refusals: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> OperationBuilder {
    refusals.into_iter().fold(operation, |operation, (code, why)| {
        let mut response = json_body(why, schema);
        response.headers.extend(header_for(code));
        operation.response(code, response)
    })
}
