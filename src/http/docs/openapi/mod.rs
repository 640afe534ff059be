//! `GET /openapi.json`: the API for programs, in OpenAPI 3.1.
//!
//! The document is made from what the server itself uses: the list of operations, the rules of the models, the limits
//! of the input, the rate limits in force and the names of events. Descriptions add the rest.

mod a1111;
mod enlarging;
mod huggingface;
mod images;
mod inpainting;
mod input;
mod library;
mod mcp;
mod operations;
mod parameters;
mod probes;
mod replies;
mod request;
mod schema;
mod surface;
mod words;

pub(in crate::http) use input::fields as input_fields;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, ServerBuilder};

use crate::domain::InputRules;
use crate::http::docs::State;
use crate::http::request::{Api, ApiError, Keyless};

pub async fn openapi(
    _reader: Keyless,
    api: web::Data<Api>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let described = api.clone();
    let render = move |base: &str| {
        document(&described, base).to_json().map_err(|error| {
            tracing::error!(%error, "the OpenAPI document cannot be written");
            ApiError::Internal
        })
    };
    let text = state.openapi.at(api.base_url(&request), render).await?;
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-cache")).content_type("application/json");
    Ok(text.answer(&request, response))
}

const ABOUT: &str = "Stable Diffusion on your own machine, with the API of the hosted serverless \
endpoint `stable-diffusion-v1`: submit a job, poll its status, download its pictures. The server deletes a job and \
its pictures half an hour after the job ended. After runsync it is one minute, or five if the request had \
`wait`.\n\nRepeated slashes in a path collapse. Every error is a JSON object with one sentence, `error`. Every \
answer has an `X-Request-Id`: the client's own if it sent a usable one. One of several servers behind a balancer says which one it is in \
`X-Stablehand-Node`.";

/// The answers that no other program's API has.
fn own_schemas() -> ComponentsBuilder {
    library::add_schemas(probes::add_schemas(replies::add(ComponentsBuilder::new())))
}

/// The document for a client that reaches the server at `base`.
pub(super) fn document(api: &Api, base: &str) -> OpenApi {
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
        .servers(Some([server("v2", "This version"), server("v1", "The same under its older name")]))
        .paths(operations::paths(api))
        .components(Some(
            [images::add_schemas, huggingface::add_schemas, a1111::add_schemas, mcp::add_schemas]
                .into_iter()
                .fold(own_schemas(), |components, add| add(components, api))
                .schema("Request", request::request())
                .schema("Input", input::input(&rules))
                .schema("Policy", request::policy())
                .security_scheme(operations::BEARER, bearer())
                .security_scheme(operations::PLAIN, plain())
                .security_scheme(operations::AZURE, azure())
                .security_scheme(operations::BASIC, basic())
                .build(),
        ))
        .build();
    openapi.schema = String::from("https://spec.openapis.org/oas/3.1/dialect/base");
    openapi
}

/// The rules of all models served. Where they differ, the most permissive one of each.
fn rules(api: &Api) -> InputRules {
    let all = || api.endpoints.iter().map(|endpoint| &endpoint.rules);
    let first = all().next().cloned().unwrap_or_default();
    InputRules {
        grid: all().map(|rules| rules.grid).min().unwrap_or(first.grid),
        max_clip_skip: all().map(|rules| rules.max_clip_skip).max().unwrap_or(first.max_clip_skip),
        ..first
    }
}

fn bearer() -> SecurityScheme {
    let about = "`Authorization: Bearer KEY`; `bearer` works as well.";
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(about)).build())
}

fn azure() -> SecurityScheme {
    let about = "`api-key: KEY`, as Azure's clients send it; for other APIs only.";
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("api-key", about)))
}

fn basic() -> SecurityScheme {
    let about = "The key as password or as user name; for other APIs only.";
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some(about)).build())
}

fn plain() -> SecurityScheme {
    let about = "`Authorization: KEY`, without a scheme.";
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description("Authorization", about)))
}
