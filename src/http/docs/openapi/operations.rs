//! The operations: what each accepts, what it answers, and its refusals.

use std::num::NonZeroU32;

use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, HttpMethod, Paths, Required, Response, ResponseBuilder, ResponsesBuilder};

use super::parameters::{endpoint, idempotency_key, page, path, query, wait};
use super::schema::{choice, integer, object, reference, text};
use super::surface::json_body;
use super::words::{Words, words};
use super::{a1111, huggingface, images, library, mcp, probes};
use crate::http::request::{Api, Limit, Operation};
use crate::wire::JobEvent;

pub(super) const BEARER: &str = "bearer";
pub(super) const PLAIN: &str = "key";
pub(super) const AZURE: &str = "api-key";
pub(super) const BASIC: &str = "basic";

pub(super) fn paths(api: &Api) -> Paths {
    let mut paths = PathsBuilder::new();
    for operation in Operation::ALL {
        let words = words(operation);
        let methods = operation.methods();
        let mut item = PathItem::default();
        // POST, which the published clients use, gets the plain operation id.
        if methods.accepts_post() {
            item.post = Some(describe(api, operation, &words, &HttpMethod::Post).build());
        }
        if methods.accepts_get() {
            item.get = Some(describe(api, operation, &words, &HttpMethod::Get).build());
        }
        paths = paths.path(format!("/{{endpoint}}{}", operation.path()), item);
    }
    let paths = paths
        .path("/{endpoint}/images/{id}/{index}.png", image(api))
        .path("/{endpoint}/images/{id}/{index}/{finish}", finished_image(api));
    let paths = [images::add_paths, huggingface::add_paths, a1111::add_paths, mcp::add_paths]
        .into_iter()
        .fold(paths, |paths, add| add(paths, api));
    probes::add_paths(library::add_paths(paths)).build()
}

fn describe(api: &Api, operation: Operation, words: &Words, method: &HttpMethod) -> OperationBuilder {
    let both = operation.methods().accepts_get() && operation.methods().accepts_post();
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
        described = described.parameter(path("id", text("The job's id, from run or runsync")));
    }
    if waits(operation) {
        described = described.parameter(wait());
    }
    if operation == Operation::Requests {
        described = page().into_iter().fold(described, OperationBuilder::parameter);
    }
    if operation == Operation::Events {
        let either = "From a URL that `POST …/url` answered";
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
    if operation == Operation::Tokens {
        described = described.request_body(Some(
            RequestBodyBuilder::new()
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(reference("Prompt"))))
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
            .response("204", Response::new("The listener has already received the last event")),
        _ => responses.response("200", json_body(about, schema)),
    };
    let mut refuse = |code: &str, why: &str| {
        let builder = std::mem::take(&mut responses);
        responses = builder.response(code, refusal(code, why));
    };
    if submits(operation) {
        refuse("400", "The request is not valid. The sentence names every violation");
    } else if operation == Operation::Retry {
        refuse("400", "The job has not failed or timed out, or cannot be retried");
    } else if waits(operation) {
        refuse("400", "`wait` is not a number");
    } else if operation == Operation::Requests {
        refuse("400", "The query is not valid");
    } else if operation == Operation::Delete {
        refuse("400", "The job has not ended");
    } else if operation == Operation::Tokens {
        refuse("400", "The body is not valid, or the prompt is too long");
    }
    refuse("401", "No valid API key");
    if operation == Operation::Events {
        refuse("403", "The signature is not valid, or the URL has expired");
    }
    refuse("404", if has_id(operation) { "No such endpoint or job" } else { "No such endpoint" });
    refuse("405", "Wrong method: `Allow` lists the right ones");
    if submits(operation) {
        refuse("409", "The `Idempotency-Key` was already used for another request");
    }
    if submits(operation) || operation == Operation::Tokens {
        refuse("408", "The body arrived too slowly");
        refuse("413", "The body is too large");
    }
    refuse("429", "Too many requests in 10 seconds or at once, or the queue is full");
    refuse("500", "Internal server error");
    refuse("503", "The server cannot write to its disk now, receives too much at once, or is stopping");
    responses
}

fn image(api: &Api) -> PathItem {
    let about = "The URL is in the job's output. It is signed, needs no key, and expires with the job.";
    let operation = signed_image(api, "image", "Download a picture", about, &["image/png"])
        .response("304", Response::new("The client already has this picture (`If-None-Match`)"));
    PathItem::new(HttpMethod::Get, operation.build())
}

fn finished_image(api: &Api) -> PathItem {
    let about =
        "The same for a picture that is enlarged or in another format. Answers of other APIs name such URLs.";
    let types = ["image/png", "image/jpeg", "image/webp"];
    let finish = path("finish", text("Its size, quality and format, such as `1024x1024-q90.jpeg`"));
    let operation = signed_image(api, "finished-image", "Download a finished picture", about, &types);
    PathItem::new(HttpMethod::Get, operation.parameter(finish).build())
}

fn signed_image(api: &Api, id: &str, summary: &str, about: &str, types: &[&str]) -> OperationBuilder {
    let file = |kind: &&str| Content::new(Some(text("The file").content_media_type(*kind).build()));
    let picture = types
        .iter()
        .fold(ResponseBuilder::new().description("The picture"), |picture, kind| {
            picture.content(*kind, file(kind))
        })
        .build();
    OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(about))
        .tag("Follow")
        .parameter(endpoint(api))
        .parameter(path("id", text("The job's id")))
        .parameter(path("index", integer("The index of the picture").minimum(Some(0))))
        .parameter(
            query("expires", integer("When the URL expires, in seconds since 1970")).required(Required::True),
        )
        .parameter(query("signature", text("The signature of all values before it")).required(Required::True))
        .security(SecurityRequirement::default())
        .response("200", picture)
        .response("403", refusal("403", "The signature is not valid"))
        .response("404", refusal("404", "No such endpoint, or the picture has been deleted"))
        .response("405", refusal("405", "Wrong method: `Allow` lists the right ones"))
        .response("500", refusal("500", "Internal server error"))
        .response("503", refusal("503", "The server is stopping"))
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

pub(super) fn refusal(code: &str, why: &str) -> Response {
    let mut response = json_body(why, "Error");
    response.headers.extend(header_for(code));
    response
}

/// The header that comes with a refusal.
pub(super) fn header_for(code: &str) -> Option<(String, Header)> {
    let (name, schema) = match code {
        "401" => ("WWW-Authenticate", choice("How to authenticate", ["Bearer"])),
        "405" => ("Allow", text("The methods that the route accepts")),
        "429" | "503" => ("Retry-After", integer("Seconds to wait").minimum(Some(1))),
        _ => return None,
    };
    Some((name.to_owned(), Header::new(schema.build())))
}

/// OpenAPI 3.1 cannot describe a stream of events, so this describes one event.
fn events(about: &str) -> Response {
    let event = object("One event")
        .property("event", choice("What happened", JobEvent::ALL.map(JobEvent::name)))
        .property("data", text("JSON: the job's state, its step, a picture, or how it ended"))
        .property("id", text("Sent with the last event only"))
        .required("event")
        .required("data")
        .build();
    ResponseBuilder::new().description(about).content("text/event-stream", Content::new(Some(event))).build()
}
