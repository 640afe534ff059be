//! A body, field by field: the type with its limits, the default, the description.

use maud::{Markup, html};
use serde_json::Value;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::{Components, Object, RefOr, Schema};

use super::{pretty, rich};
use crate::http::docs::layout::snippet;

/// The fields of a body, as a table.
pub(super) fn schema(id: &str, title: &str, name: &str, components: &Components) -> Markup {
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
                @if let Some(default) = default { code { (plain(default)) } }
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
pub(super) fn kind(object: &Object) -> String {
    let name = |kind: &Type| match kind {
        Type::Object => "object",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "true or false",
        Type::Array => "list",
        Type::Null => "null",
    };
    let name = match &object.schema_type {
        SchemaType::Type(kind) => name(kind),
        SchemaType::Array(kinds) => kinds.iter().find(|kind| **kind != Type::Null).map_or("", name),
        SchemaType::AnyValue => "anything",
    };
    format!("{name}{}{}", range(object), grid(object))
}

fn range(object: &Object) -> String {
    match (value(object.minimum.as_ref()), value(object.maximum.as_ref())) {
        // Readers need not see all digits of a 64-bit limit.
        (Some(min), Some(max)) if max.as_u64() == Some(u64::MAX) => format!(", {min} to 2⁶⁴−1"),
        (Some(min), Some(max)) if min == max => format!(", only {max}"),
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        (None, Some(max)) => match value(object.exclusive_minimum.as_ref()) {
            Some(min) => format!(", above {min}, up to {max}"),
            None => format!(", up to {max}"),
        },
        _ => String::new(),
    }
}

fn grid(object: &Object) -> String {
    value(object.multiple_of.as_ref()).map_or_else(String::new, |grid| format!(", in steps of {grid}"))
}

fn value(number: Option<&utoipa::Number>) -> Option<Value> {
    serde_json::to_value(number?).ok()
}

/// A value as people write it: text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
