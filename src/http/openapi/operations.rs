//! The operations: what each takes, what it answers, how it refuses.

use std::num::NonZeroU32;

use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    Content, HttpMethod, ObjectBuilder, Paths, Required, Response, ResponseBuilder, ResponsesBuilder,
};

use super::parameters::{endpoint, idempotency_key, page, path, query, wait};
use super::schema::{choice, integer, object, reference, text};
use crate::http::{Api, Limit, Operation};

pub(super) const BEARER: &str = "bearer";
pub(super) const PLAIN: &str = "key";

/// What is said of one operation.
struct Words {
    summary: &'static str,
    about: &'static str,
    /// The name of its answer's schema, and what that is.
    answer: (&'static str, &'static str),
}

fn words(operation: Operation) -> Words {
    let (summary, about, answer) = match operation {
        Operation::Run => (
            "Submit a job",
            "Takes a job into the queue and answers at once. The job is on the disk by then.",
            ("Submitted", "The job's name"),
        ),
        Operation::RunSync => (
            "Submit a job and wait for it",
            "Takes a job into the queue and answers once it has ended, or as it stands after `wait`.",
            ("Job", "The job, ended or as it stands"),
        ),
        Operation::Status => {
            ("Look at a job", "The job as it stands, with its pictures once it is done.", ("Job", "The job"))
        }
        Operation::StatusSync => (
            "Wait for a job",
            "The job once it has ended, or as it stands after `wait`.",
            ("Job", "The job, ended or as it stands"),
        ),
        Operation::Cancel => (
            "Cancel a job",
            "A running job stops at its next step. One that has ended keeps its state.",
            ("Cancelled", "The job's state afterwards"),
        ),
        Operation::Retry => (
            "Do a job again",
            "Puts a job that FAILED or TIMED_OUT back into the queue, its former output removed.",
            ("Submitted", "The job, queued again"),
        ),
        Operation::PurgeQueue => {
            ("Drop all queued jobs", "Running ones go on.", ("Purged", "How many were dropped"))
        }
        Operation::Health => {
            ("Count jobs and workers", "How busy the endpoint is.", ("Health", "The counts"))
        }
        Operation::Stream => (
            "Follow a job",
            "What the job has brought since this was asked last: steps, then pictures. Held until there is \
             something, for 5 seconds at most; what was read once does not come again.",
            ("Stream", "What is new, perhaps nothing"),
        ),
        Operation::Events => (
            "Follow a job in a browser",
            "Server-Sent Events `state`, `step`, `picture` and at last `end`, to any number of listeners. With a key, \
             or by a URL that `POST …/url` gave, for `EventSource` cannot send one.",
            ("", "Events, as long as the job lasts"),
        ),
        Operation::EventsUrl => (
            "Get a URL for events",
            "A signed URL at which a browser follows this job without a key. It lets listeners in for 10 minutes.",
            ("EventsUrl", "The URL"),
        ),
        Operation::Requests => {
            ("List jobs", "The endpoint's jobs, newest first, a page at a time.", ("Requests", "A page"))
        }
    };
    Words { summary, about, answer }
}

pub(super) fn paths(api: &Api) -> Paths {
    let mut paths = PathsBuilder::new();
    for operation in Operation::ALL {
        let words = words(operation);
        let methods = operation.methods();
        let mut item = PathItem::default();
        // The method that the clients use comes first, under the plain name.
        if methods.takes_post() {
            item.post = Some(describe(api, operation, &words, &HttpMethod::Post).build());
        }
        if methods.takes_get() {
            item.get = Some(describe(api, operation, &words, &HttpMethod::Get).build());
        }
        paths = paths.path(format!("/{{endpoint}}{}", operation.path()), item);
    }
    paths.path("/{endpoint}/images/{id}/{index}.png", image(api)).build()
}

fn describe(api: &Api, operation: Operation, words: &Words, method: &HttpMethod) -> OperationBuilder {
    let both = operation.methods().takes_get() && operation.methods().takes_post();
    let suffix = if both && *method == HttpMethod::Get { "-get" } else { "" };
    let about = format!("{} {}", words.about, limit(api.limiter.limit(operation)));
    let mut described = OperationBuilder::new()
        .operation_id(Some(format!("{}{suffix}", operation.name())))
        .summary(Some(words.summary))
        .description(Some(about.trim_end()))
        .tag(if submits(operation) { "Submit" } else { "Follow" })
        .parameter(endpoint(api))
        .security(SecurityRequirement::new(BEARER, [] as [&str; 0]))
        .security(SecurityRequirement::new(PLAIN, [] as [&str; 0]));
    if has_id(operation) {
        described = described.parameter(path("id", text("The job's name, as run or runsync answered it")));
    }
    if waits(operation) {
        described = described.parameter(wait());
    }
    if operation == Operation::Requests {
        described = page().into_iter().fold(described, OperationBuilder::parameter);
    }
    if operation == Operation::Events {
        let either = "Of a URL that `POST …/url` gave";
        described = described
            .parameter(query("expires", integer(either)))
            .parameter(query("signature", text(either)))
            .security(SecurityRequirement::default());
    }
    if submits(operation) {
        described = described.parameter(idempotency_key()).request_body(Some(
            RequestBodyBuilder::new()
                .description(Some(if operation == Operation::Run { "Up to 10 MB." } else { "Up to 20 MB." }))
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(reference("Request"))))
                .build(),
        ));
    }
    described.responses(responses(operation, words))
}

fn responses(operation: Operation, words: &Words) -> ResponsesBuilder {
    let (schema, about) = words.answer;
    let mut responses = ResponsesBuilder::new();
    responses = match operation {
        Operation::Events => responses
            .response("200", events(about))
            .response("204", Response::new("The listener that connects again has seen the end")),
        _ => responses.response("200", json(about, schema)),
    };
    let mut refuse = |code: &str, why: &str| {
        let builder = std::mem::take(&mut responses);
        responses = builder.response(code, refusal(code, why));
    };
    if submits(operation) {
        refuse("400", "The request is not one: the sentence names every violation");
    } else if operation == Operation::Retry {
        refuse("400", "The job is in a state from which there is no retry");
    } else if waits(operation) {
        refuse("400", "`wait` is no number");
    } else if operation == Operation::Requests {
        refuse("400", "The query is not one");
    }
    refuse("401", "No valid API key");
    if operation == Operation::Events {
        refuse("403", "Not a URL that this server signed, or one that has expired");
    }
    refuse("404", if has_id(operation) { "No such endpoint or job" } else { "No such endpoint" });
    refuse("405", "The route takes other methods, which `Allow` names");
    if submits(operation) {
        refuse("409", "The `Idempotency-Key` was used for another request");
        refuse("408", "The body came too slowly");
        refuse("413", "The body is too large");
    }
    refuse("429", "Too many requests, by rate or at once, or too many queued jobs");
    refuse("500", "Something went wrong inside the server");
    refuse("503", "The server cannot write at the moment, or is going down");
    responses
}

fn image(api: &Api) -> PathItem {
    let png = ResponseBuilder::new()
        .description("The picture")
        .content("image/png", Content::new(Some(text("A PNG file").content_media_type("image/png").build())))
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some("image"))
        .summary(Some("Fetch a picture"))
        .description(Some(
            "By a URL that the job's output names. It is signed, needs no key, and expires with the job.",
        ))
        .tag("Follow")
        .parameter(endpoint(api))
        .parameter(path("id", text("The job's name")))
        .parameter(path("index", integer("Which of its pictures").minimum(Some(0))))
        .parameter(
            query("expires", integer("When the URL expires, in seconds since 1970")).required(Required::True),
        )
        .parameter(query("signature", text("Over everything before")).required(Required::True))
        .security(SecurityRequirement::default())
        .response("200", png)
        .response("304", Response::new("The picture is the one that `If-None-Match` names"))
        .response("403", refusal("403", "Not a URL that this server signed"))
        .response("404", refusal("404", "No such endpoint, or the picture is forgotten"))
        .response("405", refusal("405", "The route takes other methods, which `Allow` names"))
        .response("500", refusal("500", "Something went wrong inside the server"))
        .response("503", refusal("503", "The server is going down"));
    PathItem::new(HttpMethod::Get, operation.build())
}

fn submits(operation: Operation) -> bool {
    matches!(operation, Operation::Run | Operation::RunSync)
}

fn waits(operation: Operation) -> bool {
    matches!(operation, Operation::RunSync | Operation::StatusSync)
}

fn has_id(operation: Operation) -> bool {
    operation.path().contains("{id}")
}

fn limit(limit: Limit) -> String {
    let number = |limit: Option<NonZeroU32>| limit.map(NonZeroU32::get);
    match (number(limit.per_window), number(limit.at_once)) {
        (None, None) => String::new(),
        (Some(window), None) => format!("Limit: {window} in 10 seconds."),
        (None, Some(at_once)) => format!("Limit: {at_once} at once."),
        (Some(window), Some(at_once)) => format!("Limit: {window} in 10 seconds, {at_once} at once."),
    }
}

fn json(about: &str, schema: &str) -> Response {
    ResponseBuilder::new()
        .description(about)
        .content("application/json", Content::new(Some(reference(schema))))
        .build()
}

fn refusal(code: &str, why: &str) -> Response {
    let mut response = json(why, "Error");
    let mut header = |name: &str, schema: ObjectBuilder| {
        response.headers.insert(name.to_owned(), Header::new(schema.build()));
    };
    match code {
        "401" => header("WWW-Authenticate", choice("How to come in", ["Bearer"])),
        "405" => header("Allow", text("The methods that the route takes")),
        "429" | "503" => header("Retry-After", integer("Seconds to wait").minimum(Some(1))),
        _ => {}
    }
    response
}

/// OpenAPI 3.1 has no word for a stream of events: what is described is one of them.
fn events(about: &str) -> Response {
    let event = object("One event")
        .property("event", choice("What it tells", ["status", "progress", "image", "end"]))
        .property("data", text("JSON: the job's state, its step, a picture, how it ended"))
        .property("id", text("With the last event"))
        .required("event")
        .required("data")
        .build();
    ResponseBuilder::new().description(about).content("text/event-stream", Content::new(Some(event))).build()
}
