//! `GET /openapi.json`: this API for programs, in OpenAPI 3.1.
//!
//! Made of what the server itself goes by: the list of operations, the rules of the models served,
//! the bounds of the input, the limits in force. What it cannot read from there, it says in words.

mod input;
mod operations;
mod parameters;
mod replies;
mod schema;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, ServerBuilder};

use super::{Api, ApiError};
use crate::domain::InputRules;

pub async fn openapi(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let text = document(&api, &request).to_json().map_err(|error| {
        tracing::error!(%error, "the OpenAPI document cannot be written");
        ApiError::Internal
    })?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type("application/json")
        .body(text))
}

const ABOUT: &str = "Stable Diffusion on one's own machine, with the API of the hosted serverless \
endpoint `stable-diffusion-v1`: submit a job, poll its status, download its pictures. A job and its \
pictures are forgotten half an hour after it ended; one of runsync after a minute, or five where \
`wait` was given.\n\nRepeated slashes in a path collapse. Every error is a JSON object with one \
sentence, `error`. Every answer names its request in `X-Request-Id`, the one sent if it was sane.";

/// The document as this client should read it.
pub(super) fn document(api: &Api, request: &HttpRequest) -> OpenApi {
    let base = api.base_url(request);
    let server = |version: &str, about: &str| {
        ServerBuilder::new().url(format!("{base}/{version}")).description(Some(about)).build()
    };
    let license = License::builder().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let rules = rules(api);
    let mut openapi = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("stablehand")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(ABOUT))
                .license(Some(license))
                .build(),
        )
        .servers(Some([server("v2", "This version"), server("v1", "The older name of the same")]))
        .paths(operations::paths(api))
        .components(Some(
            replies::add(ComponentsBuilder::new())
                .schema("Request", input::request())
                .schema("Input", input::input(&rules))
                .schema("Policy", input::policy())
                .security_scheme(operations::BEARER, bearer())
                .security_scheme(operations::PLAIN, plain())
                .build(),
        ))
        .build();
    openapi.schema = String::from("https://spec.openapis.org/oas/3.1/dialect/base");
    openapi
}

/// The rules that hold for all models served: where they differ, the mildest of each.
fn rules(api: &Api) -> InputRules {
    let all = || api.endpoints.values();
    let first = all().next().cloned().unwrap_or_default();
    InputRules {
        grid: all().map(|rules| rules.grid).min().unwrap_or(first.grid),
        max_clip_skip: all().map(|rules| rules.max_clip_skip).max().unwrap_or(first.max_clip_skip),
        ..first
    }
}

fn bearer() -> SecurityScheme {
    let about = "`Authorization: Bearer KEY`; `bearer` is read as well.";
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build())
}

fn plain() -> SecurityScheme {
    let about = "`Authorization: KEY`, without a scheme.";
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("Authorization", about)))
}
