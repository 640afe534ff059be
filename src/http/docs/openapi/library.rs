//! The library: models on the server's disk, and what they are used with.

use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder, Schema, Type};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ComponentsBuilder, Content, HttpMethod, Object, ObjectBuilder, Required};

use super::operations::{BEARER, PLAIN, refusal};
use super::parameters::path;
use super::schema::{choice, flag, integer, list, object, or_null, reference, text};
use super::surface::json_body as answer;
use crate::library::{Kind, Place, Status};

const CLOSED: Option<AdditionalProperties<Schema>> = Some(AdditionalProperties::FreeForm(false));

pub(super) fn add_paths(paths: PathsBuilder) -> PathsBuilder {
    let id = || path("id", text("The task's id"));
    let done = || answer("The task", "LibraryTask");
    let task = |operation: OperationBuilder| {
        operation.parameter(id()).response("200", done()).response("404", refusal("404", "No such task"))
    };
    paths
        .path("/library", PathItem::new(HttpMethod::Get, whole()))
        .path("/library/pull", PathItem::new(HttpMethod::Post, begins(pull())))
        .path("/library/check", PathItem::new(HttpMethod::Post, begins(check())))
        .path("/library/remove", PathItem::new(HttpMethod::Post, remove()))
        .path(
            "/library/tasks/{id}",
            PathItem::new(
                HttpMethod::Get,
                task(operation(
                    "library-task",
                    "Look at a task",
                    "How far a pull or a check is. The last 20 are kept.",
                )),
            ),
        )
        .path(
            "/library/tasks/{id}/cancel",
            PathItem::new(
                HttpMethod::Post,
                task(operation(
                    "library-cancel",
                    "Cancel a task",
                    "What a pull has collected is kept: the next pull of the same name resumes it.",
                ))
                .response("403", refusal("403", MAY_NOT)),
            ),
        )
}

pub(super) fn add_schemas(components: ComponentsBuilder) -> ComponentsBuilder {
    components
        .schema("Library", library())
        .schema("LibraryItem", item())
        .schema("LibraryTask", task())
        .schema("LibraryPull", named("What to pull", "`ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME:FILE`, `ORG/NAME:FOLDER`, a link to one of them, or the URL of a file of weights")
            .property("sha256", or_null(text("The checksum that its only file must have, in hexadecimal digits")))
            .examples([json!({ "name": "stable-diffusion-v1-5/stable-diffusion-v1-5" })])
            .build())
        .schema("LibraryCheck", object("What to check")
            .property("name", text("The name of a model that is here"))
            .required("name")
            .additional_properties(CLOSED)
            .examples([json!({ "name": "tiny-sd" })])
            .build())
        .schema("LibraryRemove", named("What to remove", "The name of what was pulled, or of an unfinished pull")
            .examples([json!({ "name": "ORG/NAME" })])
            .build())
        .schema("LibraryRemoved", object("What was removed")
            .property("name", text("Its full name"))
            .property("bytes", integer("The bytes that are free now").minimum(Some(0)))
            .required("name")
            .required("bytes")
            .additional_properties(CLOSED)
            .build())
}

const MAY_NOT: &str = "The server was not started with `--manage-models on`";

fn whole() -> OperationBuilder {
    operation(
        "library",
        "List the models on the disk",
        "The models, what was pulled to be used with them, unfinished pulls, and the task that runs or ran last.",
    )
    .response("200", answer("All that is here", "Library"))
}

fn pull() -> OperationBuilder {
    operation(
        "library-pull",
        "Pull a model",
        "Downloads a model, a ControlNet, a LoRA or an upscaler from a hub or a URL, as `stablehand models pull` does. It \
         answers at once with a task. Only public addresses and those of `--allow-addresses` are called. Requests can use \
         what is pulled as soon as it is there; a model when an endpoint serves it after a restart.",
    )
    .request_body(Some(body("LibraryPull")))
}

fn check() -> OperationBuilder {
    operation(
        "library-check",
        "Check a model",
        "Says whether a model draws, what it contains and what works with it, as `stablehand models check` prints it. It \
         answers at once with a task, whose `report` comes with its end. It runs on the CPU, in a process of its own.",
    )
    .request_body(Some(body("LibraryCheck")))
    .response("404", refusal("404", "No such model"))
}

fn remove() -> OperationBuilder {
    changes(
        operation(
            "library-remove",
            "Remove a model",
            "Deletes what was pulled, or an unfinished pull. A model that an endpoint serves stays.",
        )
        .request_body(Some(body("LibraryRemove")))
        .response("200", answer("It is removed", "LibraryRemoved"))
        .response("404", refusal("404", "No such model"))
        .response("409", refusal("409", "An endpoint serves it, or a task is at work on it")),
    )
}

/// An operation that begins a task.
fn begins(operation: OperationBuilder) -> OperationBuilder {
    changes(
        operation
            .response("202", answer("The task", "LibraryTask"))
            .response("409", refusal("409", "Another task runs")),
    )
}

fn changes(operation: OperationBuilder) -> OperationBuilder {
    operation
        .response("400", refusal("400", "The body or the name is not valid"))
        .response("403", refusal("403", MAY_NOT))
        .response("408", refusal("408", "The body arrived too slowly"))
        .response("413", refusal("413", "The body is too large"))
}

fn operation(id: &str, summary: &str, about: &str) -> OperationBuilder {
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(about))
        .tag("Library")
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
        .security(SecurityRequirement::new(PLAIN, [] as [&str; 0]))
        .response("401", refusal("401", "No valid API key"))
        .response("405", refusal("405", "Wrong method: `Allow` lists the right ones"))
        .response("429", refusal("429", "Too many requests in 10 seconds or at once"))
        .response("500", refusal("500", "Internal server error"))
        .response("503", refusal("503", "The folder of models cannot be used now"))
}

fn body(schema: &str) -> RequestBody {
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content("application/json", Content::new(Some(reference(schema))))
        .build()
}

fn named(about: &str, name: &str) -> ObjectBuilder {
    object(about)
        .property("name", text(name).max_length(Some(2048)))
        .property("kind", or_null(kind("What it is; a model if absent")))
        .required("name")
        .additional_properties(CLOSED)
}

fn kind(about: &str) -> ObjectBuilder {
    choice(about, Kind::ALL.map(Kind::as_str))
}

fn library() -> Object {
    let part = object("An unfinished pull")
        .property("kind", kind("What it is"))
        .property("name", text("The name that resumes it"))
        .property("bytes", integer("What is here of it").minimum(Some(0)))
        .required("kind")
        .required("name")
        .required("bytes")
        .additional_properties(CLOSED)
        .build();
    let task = OneOfBuilder::new()
        .description(Some("The task that runs, or else the last one; `null` if there was none"))
        .item(reference("LibraryTask"))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .build();
    ["may_change", "items", "unfinished", "task"]
        .into_iter()
        .fold(
            object("What is on the server's disk")
                .property("may_change", flag("Whether this server lets clients pull, check and remove"))
                .property(
                    "items",
                    list(
                        "The models, then the ControlNets, LoRAs and upscalers that were pulled",
                        reference("LibraryItem"),
                    ),
                )
                .property("unfinished", list("Pulls that another pull resumes", part))
                .property("task", Schema::from(task)),
            ObjectBuilder::required,
        )
        .additional_properties(CLOSED)
        .build()
}

fn item() -> Object {
    ["kind", "name", "form", "bytes", "place", "pulled_at", "endpoints"]
        .into_iter()
        .fold(
            object("A model, or what is used with one")
                .property("kind", kind("What it is"))
                .property("name", text("Its name; of a model, the one for `--model`"))
                .property("form", text("Such as `safetensors file`"))
                .property("bytes", integer("Its size").minimum(Some(0)))
                .property(
                    "place",
                    choice(
                        "Inside the binary, pulled, copied into the folder by somebody, or in the cache of the hub's own \
                         programs. Only what was pulled can be removed here",
                        Place::ALL.map(Place::as_str),
                    ),
                )
                .property("pulled_at", or_null(integer("When it was pulled, in milliseconds since 1970")))
                .property("endpoints", list("The endpoints that serve it", text("An endpoint"))),
            ObjectBuilder::required,
        )
        .additional_properties(CLOSED)
        .build()
}

fn task() -> Object {
    ["id", "work", "kind", "name", "status", "bytes", "total", "note", "report", "error"]
        .into_iter()
        .fold(
            object("A pull or a check")
                .property("id", text("Its id"))
                .property("work", choice("What it does", ["pull", "check"]))
                .property("kind", kind("What it works on"))
                .property("name", text("The name of that; of a URL the host alone at first"))
                .property("status", choice("How far it is", Status::ALL.map(Status::as_str)))
                .property("bytes", integer("The bytes that are here. They can become fewer").minimum(Some(0)))
                .property("total", or_null(integer("All bytes, where they are known").minimum(Some(0))))
                .property(
                    "note",
                    or_null(text("The last word on how it goes, and after a pull how to use it")),
                )
                .property("report", or_null(text("What a check has found, in lines of 100 characters")))
                .property("error", or_null(text("Why it failed"))),
            ObjectBuilder::required,
        )
        .additional_properties(CLOSED)
        .build()
}
