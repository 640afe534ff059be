//! `GET /docs`: the OpenAPI document for people. One section an operation, each with a line to paste; then the
//! input, field by field.

mod fields;

use std::fmt::Write as _;

use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::{Components, OpenApi, RefOr, Response, Schema};

use self::fields::{kind, schema};
use super::layout::{self, Place, snippet};
use super::{State, openapi};
use crate::http::request::{Api, ApiError, Keyless, Surface};

pub async fn reference(
    _reader: Keyless,
    api: web::Data<Api>,
    state: web::Data<State>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let described = api.clone();
    let render = move |base: &str| {
        let endpoint = described.endpoints.names().first().copied().unwrap_or_default();
        Ok(page(&openapi::document(&described, base), base, endpoint).into_string())
    };
    let page = state.reference.at(api.base_url(&request), render).await?;
    Ok(super::html(&request, &page))
}

/// `base`: the address at which this reader reached the server; `endpoint`: the one that examples name.
fn page(openapi: &OpenApi, base: &str, endpoint: &str) -> Markup {
    let paths: Vec<Path> =
        openapi.paths.paths.iter().filter_map(|(path, item)| Path::described(path, item)).collect();
    let components = openapi.components.clone().unwrap_or_default();
    let about = openapi.info.description.as_deref().unwrap_or_default();
    let contents = html! {
        @for path in &paths {
            a href={ "#" (path.id) } { (path.summary()) code { (path.short) } }
        }
        a href="#input" { "The input" }
        a href="#job" { "The job" }
    };
    let main = html! {
        h1 { "stablehand " small { (openapi.info.version) } }
        @for paragraph in about.split("\n\n") { p { (rich(paragraph)) } }
        (keys(base))
        @for path in &paths { (section(path, &components, base, endpoint)) }
        (schema("input", "The input", "Input", &components))
        (schema("policy", "The policy", "Policy", &components))
        (schema("job", "The job", "Job", &components))
        (schema("image-request", "A request of OpenAI's API", "ImageRequest", &components))
        footer {
            p { "For programs, the same is at " a href="openapi.json" { "/openapi.json" } " in OpenAPI 3.1." }
        }
    };
    layout::page(Place::Reference, "API reference", &contents, &main)
}

/// One path. Its operations differ only in their method.
struct Path<'a> {
    id: &'a str,
    /// The methods of the path, the usual one first.
    methods: Vec<&'static str>,
    full: &'a str,
    short: &'a str,
    operation: &'a Operation,
}

impl<'a> Path<'a> {
    fn described(path: &'a str, item: &'a PathItem) -> Option<Self> {
        let known = [("POST", &item.post), ("GET", &item.get), ("DELETE", &item.delete)];
        let operation = known.iter().find_map(|(_, operation)| operation.as_ref())?;
        Some(Self {
            id: operation.operation_id.as_deref().unwrap_or(path),
            methods: known.iter().filter(|(_, found)| found.is_some()).map(|(method, _)| *method).collect(),
            full: path,
            short: path.strip_prefix("/{endpoint}").unwrap_or(path),
            operation,
        })
    }

    fn summary(&self) -> &str {
        self.operation.summary.as_deref().unwrap_or(self.full)
    }
}

fn keys(base: &str) -> Markup {
    html! {
        section id="keys" {
            h2 { "Keys and addresses" }
            p {
                "Send the key as " code { "Authorization: Bearer KEY" } " or as " code { "Authorization: KEY" }
                ". Put " code { (base) "/v2" } " before every path below; " code { (base) "/v1" } " works as well."
            }
            (snippet("export STABLEHAND_API_KEY=…"))
        }
    }
}

fn section(path: &Path, components: &Components, base: &str, endpoint: &str) -> Markup {
    let operation = path.operation;
    let parameters: Vec<&Parameter> =
        operation.parameters.iter().flatten().filter(|parameter| parameter.name != "endpoint").collect();
    html! {
        section id=(path.id) {
            h2 { (path.summary()) }
            p.path {
                @for method in &path.methods { span.method { (method) } " " }
                code { (path.full) }
            }
            p { (rich(operation.description.as_deref().unwrap_or_default())) }
            (snippet(&curl(path, components, base, endpoint)))
            @if !parameters.is_empty() {
                div.table { table {
                    tbody {
                        @for parameter in parameters { (parameter_row(parameter)) }
                    }
                } }
            }
            details {
                summary { "Answers" }
                div.table { table { tbody {
                    @for (code, response) in &operation.responses.responses {
                        (answer_row(code, response))
                    }
                } } }
            }
        }
    }
}

fn parameter_row(parameter: &Parameter) -> Markup {
    html! {
        tr {
            th scope="row" { code { (parameter.name) } }
            @if let Some(RefOr::T(Schema::Object(object))) = &parameter.schema {
                td { (kind(object)) }
                td { (rich(object.description.as_deref().unwrap_or_default())) }
            }
        }
    }
}

fn answer_row(code: &str, response: &RefOr<Response>) -> Markup {
    let RefOr::T(response) = response else { return html! {} };
    html! {
        tr {
            th scope="row" { code { (code) } }
            td {
                (rich(&response.description))
                @for (name, _) in &response.headers { " · " code { (name) } }
            }
        }
    }
}

/// A command for the shell. The reader fills in the job's id.
fn curl(path: &Path, components: &Components, base: &str, endpoint: &str) -> String {
    if path.id == "image" || path.id == "finished-image" {
        return "curl -o picture.png \"$IMAGE_URL\"".to_owned();
    }
    let id = if path.full.contains("/tasks/") { "$TASK" } else { "$JOB" };
    let target = path.full.replace("{endpoint}", endpoint).replace("{id}", id);
    let method = if path.methods == ["GET"]
        || path.operation.request_body.is_none() && path.methods.contains(&"GET")
    {
        ""
    } else {
        "-X POST "
    };
    let mut line =
        format!("curl {method}\"{base}/v2{target}\" \\\n  -H \"Authorization: Bearer $STABLEHAND_API_KEY\"");
    if path.full == Surface::Mcp.path() {
        line.push_str(" \\\n  -H 'Accept: application/json, text/event-stream'");
    }
    let body = path.operation.request_body.as_ref();
    if body.is_some_and(|body| body.content.contains_key("multipart/form-data")) {
        line.push_str(" \\\n  -F image=@picture.png \\\n  -F mask=@mask.png \\\n  -F prompt='a red fox'");
    } else if let Some(example) = body.and_then(|body| example(body, components)) {
        let _ = write!(line, " \\\n  -H 'Content-Type: application/json' \\\n  -d '{example}'");
    }
    line
}

/// The first example of a body's schema.
fn example<'a>(body: &RequestBody, components: &'a Components) -> Option<&'a Value> {
    let RefOr::Ref(reference) = body.content.get("application/json")?.schema.as_ref()? else { return None };
    let name = reference.ref_location.rsplit('/').next()?;
    let Some(RefOr::T(Schema::Object(request))) = components.schemas.get(name) else { return None };
    request.examples.first()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

/// Text with `code` in backticks.
fn rich(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}
