//! The body of run and runsync beside its `input`: the policy, the webhook, and the client's own bucket.

use serde_json::json;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, SchemaType, Type};
use utoipa::openapi::{Object, Schema, SchemaFormat};

use super::schema::{choice, flag, number, object, or_null, reference, text};
use crate::domain::Policy;

/// The body of run and runsync. Unknown keys are ignored, as the hosted service does.
pub(super) fn request() -> Object {
    object("A job. Other keys are ignored.")
        .property("input", reference("Input"))
        .property("policy", reference("Policy"))
        .property("webhook", or_null(text(WEBHOOK).format(Some(SchemaFormat::Custom("uri".to_owned())))))
        .property("webhookEvents", webhook_events())
        .property("s3Config", s3_config())
        .required("input")
        .additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)))
        .examples([json!({ "input": { "prompt": "a red fox in the snow", "seed": 42 } })])
        .build()
}

const WEBHOOK: &str = "An http or https URL. When the job ends, the server posts its status body there";

fn webhook_events() -> Schema {
    let events = choice("An event", ["start", "progress", "completed", "end"]);
    let mut events = ArrayBuilder::new()
        .items(events.build())
        .description(Some("The events to post as well. The end of the job is always posted"))
        .build();
    events.schema_type = SchemaType::Array(vec![Type::Array, Type::Null]);
    events.into()
}

fn s3_config() -> Object {
    let key = |about: &str| text(about).pattern(Some("^[!-~]{1,512}$"));
    let bucket =
        text("The bucket's name").pattern(Some(r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")).max_length(Some(255));
    let url =
        text("The S3 server: an http or https URL").format(Some(SchemaFormat::Custom("uri".to_owned())));
    let region =
        text("The region, if the server's name does not contain it").pattern(Some("^[A-Za-z0-9-]{0,64}$"));
    or_null(
        object(
            "The client's own bucket. The pictures are stored there as {job id}/{index}.png, and not on this server",
        )
        .property("accessId", key("The access key's id"))
        .property("accessSecret", key("Its secret; deleted when the job has ended"))
        .property("bucketName", bucket)
        .property("endpointUrl", url)
        .property("region", or_null(region))
        .required("accessId")
        .required("accessSecret")
        .required("bucketName")
        .required("endpointUrl"),
    )
}

/// The parser clamps times, so the schema states no limit but 0.
pub(super) fn policy() -> Object {
    let defaults = Policy::default();
    let ms = |about: &str, default: std::time::Duration| {
        or_null(
            number(about)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Double)))
                .minimum(Some(0))
                .default(Some(json!(u64::try_from(default.as_millis()).unwrap_or(u64::MAX)))),
        )
    };
    let mut policy = object("How the server treats the job. Other keys are ignored.")
        .property(
            "executionTimeout",
            ms(
                "Milliseconds of work after which the job is TIMED_OUT; 5 seconds to 7 days",
                defaults.execution_timeout,
            ),
        )
        .property(
            "ttl",
            ms(
                "Milliseconds after which the job is deleted in any state; 10 seconds to 7 days",
                defaults.ttl,
            ),
        )
        .property("lowPriority", or_null(flag("Runs after all other jobs").default(Some(json!(false)))));
    policy =
        policy.additional_properties(Some(utoipa::openapi::schema::AdditionalProperties::FreeForm(true)));
    or_null(policy)
}
