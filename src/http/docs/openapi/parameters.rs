//! The parameters in paths, queries and headers.

use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required};

use super::schema::{choice, integer, number, text};
use crate::domain::{Idempotency, JobStatus};
use crate::http::native::{DEFAULT_LIMIT, DEFAULT_MS, MAX_LIMIT, MAX_MS, MIN_MS};
use crate::http::request::Api;

pub(super) fn endpoint(api: &Api) -> ParameterBuilder {
    path("endpoint", choice("The endpoints of this server", api.endpoints.names()))
}

pub(super) fn path(name: &str, schema: ObjectBuilder) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(schema.build()))
}

pub(super) fn wait() -> ParameterBuilder {
    let about = format!("Milliseconds to wait, from {MIN_MS} to {MAX_MS}; other values are clamped.");
    query("wait", number(&about).default(Some(serde_json::json!(DEFAULT_MS))))
}

pub(super) fn query(name: &str, schema: ObjectBuilder) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .schema(Some(schema.build()))
}

pub(super) fn page() -> [ParameterBuilder; 3] {
    [
        query(
            "limit",
            integer("Jobs on a page")
                .minimum(Some(1))
                .maximum(Some(MAX_LIMIT))
                .default(Some(serde_json::json!(DEFAULT_LIMIT))),
        ),
        query("status", choice("Only jobs in this state", JobStatus::ALL.map(JobStatus::as_str))),
        query("cursor", text("The `cursor` of the page before").pattern(Some("^[1-9][0-9]{0,17}$"))),
    ]
}

pub(super) fn idempotency_key() -> ParameterBuilder {
    let about = "Makes a retry safe: a second request with the same key and body gets the same job.";
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(
            text(about)
                .min_length(Some(1))
                .max_length(Some(Idempotency::MAX_LENGTH))
                .pattern(Some("^[!-~]+$"))
                .build(),
        ))
}
