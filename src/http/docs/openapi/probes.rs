//! `/live` and `/ready`, which need no key.

use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ComponentsBuilder, Content, HttpMethod, Response, ResponseBuilder};

use super::operations::header_for;
use super::parameters::query;
use super::schema::{flag, object, reference, text};

const LIVE: &str = "Answers 200 while the server works, and 503 if a worker is stuck, so that it helps to restart the \
server. It needs no key.";
const READY: &str = "Answers 200 if a job that is submitted now is accepted and begins within `max_wait`, and 503 \
otherwise: models are being loaded, the queue or the disk is full, or the server stops. Without `max_wait`, any wait is \
short enough. It needs no key.";

pub(super) fn add_paths(paths: PathsBuilder) -> PathsBuilder {
    let max_wait = query("max_wait", text("The longest wait, such as `30s`, `2m` or a number of seconds"));
    let ready = probe("ready", "Is the server ready?", READY)
        .parameter(max_wait)
        .response("400", described("`max_wait` is no time", "Error"));
    paths
        .path("/live", PathItem::new(HttpMethod::Get, probe("live", "Is the server alive?", LIVE)))
        .path("/ready", PathItem::new(HttpMethod::Get, ready))
}

pub(super) fn add_schemas(components: ComponentsBuilder) -> ComponentsBuilder {
    let yes_or_no = object("Yes or no").property("ok", flag("Whether it is so")).required("ok");
    components.schema("Probe", yes_or_no.build())
}

fn probe(id: &str, summary: &str, about: &str) -> OperationBuilder {
    let mut no = described("No", "Probe");
    no.headers.extend::<Option<(String, Header)>>(header_for("503"));
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(about))
        .tag("Watch")
        .security(SecurityRequirement::default())
        .response("200", described("Yes", "Probe"))
        .response("405", described("Wrong method: `Allow` lists the right ones", "Error"))
        .response("503", no)
}

fn described(about: &str, schema: &str) -> Response {
    ResponseBuilder::new()
        .description(about)
        .content("application/json", Content::new(Some(reference(schema))))
        .build()
}
