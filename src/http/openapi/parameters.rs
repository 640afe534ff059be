//! What stands in a path, a query or a header.

use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required};

use super::schema::{choice, integer, number, text};
use crate::domain::{Idempotency, JobStatus};
use crate::http::Api;
use crate::http::requests::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::http::wait::{DEFAULT_MS, MAX_MS, MIN_MS};

pub(super) fn endpoint(api: &Api) -> ParameterBuilder {
    let mut names: Vec<&str> = api.endpoints.keys().map(crate::domain::EndpointId::as_str).collect();
    names.sort_unstable();
    path("endpoint", choice("What is served here", names))
}

pub(super) fn path(name: &str, schema: ObjectBuilder) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(schema.build()))
}

pub(super) fn wait() -> ParameterBuilder {
    let about = format!("Milliseconds; what is below {MIN_MS} or above {MAX_MS} is brought within.");
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
        query(
            "cursor",
            text("Where the page begins, as the one before said").pattern(Some("^[1-9][0-9]{0,17}$")),
        ),
    ]
}

pub(super) fn idempotency_key() -> ParameterBuilder {
    let about =
        "The same key with the same body is the same request: it is answered with the job that is there.";
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
