//! The page: one section an operation, each with a line to paste, and the input field by field.

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, PathItem};
use utoipa::openapi::schema::{AdditionalProperties, SchemaType, Type};
use utoipa::openapi::{Components, Object, OpenApi, RefOr, Response, Schema};

/// `base`: where this reader reached the server; `endpoint`: whose name the examples bear.
pub(super) fn page(openapi: &OpenApi, base: &str, endpoint: &str) -> Markup {
    let paths: Vec<Path> =
        openapi.paths.paths.iter().filter_map(|(path, item)| Path::of(path, item)).collect();
    let components = openapi.components.clone().unwrap_or_default();
    let about = openapi.info.description.as_deref().unwrap_or_default();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "stablehand · API" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/docs/page.css";
                script src="/docs/page.js" defer {}
            }
            body {
                nav aria-label="Operations" {
                    a.name href="#top" { "stablehand" }
                    @for path in &paths {
                        a href={ "#" (path.id) } { (path.summary()) code { (path.short) } }
                    }
                    a href="#input" { "The input" }
                    a href="#job" { "The job" }
                }
                main id="top" {
                    h1 { "stablehand " small { (openapi.info.version) } }
                    @for paragraph in about.split("\n\n") { p { (rich(paragraph)) } }
                    (keys(base))
                    @for path in &paths { (section(path, &components, base, endpoint)) }
                    (schema("input", "The input", "Input", &components))
                    (schema("policy", "The policy", "Policy", &components))
                    (schema("job", "The job", "Job", &components))
                    footer {
                        p { "For programs, the same is at " a href="/openapi.json" { "/openapi.json" } " in OpenAPI 3.1." }
                    }
                }
            }
        }
    }
}

/// One path with the operations on it, which differ by no more than their method.
struct Path<'a> {
    id: &'a str,
    /// With the methods that reach it, the usual one first.
    methods: Vec<&'static str>,
    path: &'a str,
    short: &'a str,
    operation: &'a Operation,
}

impl<'a> Path<'a> {
    fn of(path: &'a str, item: &'a PathItem) -> Option<Self> {
        let known = [("POST", &item.post), ("GET", &item.get)];
        let operation = known.iter().find_map(|(_, operation)| operation.as_ref())?;
        Some(Self {
            id: operation.operation_id.as_deref().unwrap_or(path),
            methods: known.iter().filter(|(_, found)| found.is_some()).map(|(method, _)| *method).collect(),
            path,
            short: path.strip_prefix("/{endpoint}").unwrap_or(path),
            operation,
        })
    }

    fn summary(&self) -> &str {
        self.operation.summary.as_deref().unwrap_or(self.path)
    }
}

fn keys(base: &str) -> Markup {
    html! {
        section id="keys" {
            h2 { "Keys and addresses" }
            p {
                "Send the key as " code { "Authorization: Bearer KEY" } " or as " code { "Authorization: KEY" }
                ". Every path below is found under " code { (base) "/v2" } " and, the same, under "
                code { (base) "/v1" } "."
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
                code { (path.path) }
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

/// The fields of a body, as a table.
fn schema(id: &str, title: &str, name: &str, components: &Components) -> Markup {
    let Some(RefOr::T(Schema::Object(object))) = components.schemas.get(name) else { return html! {} };
    html! {
        section id=(id) {
            h2 { (title) }
            p { (rich(object.description.as_deref().unwrap_or_default())) }
            div.table { table {
                thead { tr { th { "Field" } th { "Type" } th { "Default" } th { "" } } }
                tbody {
                    @for (field, schema) in &object.properties {
                        (field_row(field, schema, object.required.contains(field), components))
                    }
                }
            } }
            @if let Some(example) = &object.examples.first() { (snippet(&pretty(example))) }
        }
    }
}

fn field_row(field: &str, schema: &RefOr<Schema>, required: bool, components: &Components) -> Markup {
    let schema = resolved(schema, components);
    let default = match schema {
        Some(Schema::Object(object)) => object.default.as_ref(),
        _ => None,
    };
    html! {
        tr {
            th scope="row" { code { (field) } }
            td {
                @match schema {
                    Some(Schema::Object(object)) => (kind(object)),
                    Some(Schema::Array(_)) => "list",
                    _ => "",
                }
            }
            td {
                @if let Some(default) = default { code { (default) } }
                @else if required && field == "prompt" { em { "required" } }
            }
            td {
                @match schema {
                    Some(Schema::Object(object)) => {
                        (rich(object.description.as_deref().unwrap_or_default()))
                        @if let Some(words) = &object.enum_values {
                            div.words {
                                @for word in words.iter().filter_map(Value::as_str) { code { (word) } " " }
                            }
                        }
                    }
                    Some(Schema::Array(array)) => (rich(array.description.as_deref().unwrap_or_default())),
                    _ => "",
                }
            }
        }
    }
}

fn resolved<'a>(schema: &'a RefOr<Schema>, components: &'a Components) -> Option<&'a Schema> {
    match schema {
        RefOr::T(schema) => Some(schema),
        RefOr::Ref(reference) => {
            let name = reference.ref_location.rsplit('/').next()?;
            match components.schemas.get(name)? {
                RefOr::T(schema) => Some(schema),
                RefOr::Ref(_) => None,
            }
        }
    }
}

/// The type with its bounds, such as `integer, 1–10`.
fn kind(object: &Object) -> String {
    let name = |kind: &Type| match kind {
        Type::Object => "object",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "true or false",
        Type::Array => "list",
        Type::Null => "null",
    };
    let mut text = match &object.schema_type {
        SchemaType::Type(kind) => name(kind).to_owned(),
        SchemaType::Array(kinds) => {
            kinds.iter().find(|kind| **kind != Type::Null).map_or("", name).to_owned()
        }
        SchemaType::AnyValue => "anything".to_owned(),
    };
    let number = |number: &Option<utoipa::Number>| number.as_ref().and_then(|n| serde_json::to_value(n).ok());
    match (number(&object.minimum), number(&object.maximum)) {
        // 64 bits long is no bound that a reader needs to see digit by digit.
        (Some(min), Some(max)) if max.as_u64() == Some(u64::MAX) => text += &format!(", {min} to 2⁶⁴−1"),
        (Some(min), Some(max)) => text += &format!(", {min} to {max}"),
        (None, Some(max)) => text += &format!(", up to {max}"),
        _ => {}
    }
    if let Some(grid) = number(&object.multiple_of) {
        text += &format!(", in steps of {grid}");
    }
    if let Some(AdditionalProperties::FreeForm(false)) = object.additional_properties.as_deref() {
        return text;
    }
    text
}

/// A line for the shell. The reader puts the job's name in.
fn curl(path: &Path, components: &Components, base: &str, endpoint: &str) -> String {
    if path.id == "image" {
        return "curl -o picture.png \"$IMAGE_URL\"".to_owned();
    }
    let target = path.path.replace("{endpoint}", endpoint).replace("{id}", "$JOB");
    let method = if path.methods == ["GET"]
        || path.operation.request_body.is_none() && path.methods.contains(&"GET")
    {
        ""
    } else {
        "-X POST "
    };
    let mut line =
        format!("curl {method}\"{base}/v2{target}\" \\\n  -H \"Authorization: Bearer $STABLEHAND_API_KEY\"");
    if path.operation.request_body.is_some()
        && let Some(RefOr::T(Schema::Object(request))) = components.schemas.get("Request")
        && let Some(example) = request.examples.first()
    {
        line += &format!(" \\\n  -H 'Content-Type: application/json' \\\n  -d '{example}'");
    }
    line
}

fn snippet(text: &str) -> Markup {
    html! {
        div.snippet {
            pre { code { (text) } }
            button type="button" hidden { "Copy" }
        }
    }
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
