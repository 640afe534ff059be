//! OpenAI's Images API: what its clients send and read, over the same queue.
//!
//! `ask` reads the fields that generations and edits share; `edits` adds pictures. `respond` draws; `answer` and `stream`
//! write what came out, `error` what did not.

mod answer;
mod ask;
mod edits;
mod error;
mod generations;
mod models;
mod respond;
mod stream;

use actix_web::web;

use self::error::OpenAiError;
use super::request::{ApiError, Methods, Operation, Surface};
use super::surface::{Dialect, options, route};

/// The surface as a type.
pub struct OpenAi;

impl Dialect for OpenAi {
    const SURFACE: Surface = Surface::OpenAi;
    type Error = OpenAiError;
}

/// Base URLs without a version are common, and the OpenAPI document describes paths below `/v2`.
const PREFIXES: [&str; 3] = ["/v1", "", "/v2"];

pub(super) fn routes(config: &mut web::ServiceConfig) {
    for prefix in PREFIXES {
        let path = |path: &str| format!("{prefix}{path}");
        config
            .service(route::<OpenAi, _, _>(
                path("/models"),
                Methods::Get,
                // Like `/health`, it tells what is here.
                Operation::Health,
                models::models,
            ))
            .service(route::<OpenAi, _, _>(
                path("/models/{id:.+}"),
                Methods::Get,
                Operation::Health,
                models::one,
            ))
            .service(
                route::<OpenAi, _, _>(
                    path("/images/generations"),
                    Methods::Post,
                    Operation::RunSync,
                    generations::generations,
                )
                // SillyTavern asks so whether the server draws.
                .route(options()),
            )
            .service(route::<OpenAi, _, _>(
                path("/images/edits"),
                Methods::Post,
                Operation::RunSync,
                edits::edits,
            ))
            .service(web::resource(path("/images/{operation:.*}")).to(no_operation));
    }
}

/// Such as `/v1/images/variations`, which OpenAI has retired.
async fn no_operation() -> Result<&'static str, OpenAiError> {
    Err(ApiError::NO_ROUTE.into())
}
