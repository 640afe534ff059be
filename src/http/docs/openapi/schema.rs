//! Short functions that build schemas.

use serde_json::Value;
use utoipa::openapi::schema::{ArrayBuilder, SchemaType, Type};
use utoipa::openapi::{Object, ObjectBuilder, Ref, RefOr, Schema};

pub(super) fn text(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(about))
}

pub(super) fn integer(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).description(Some(about))
}

pub(super) fn number(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number).description(Some(about))
}

pub(super) fn flag(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(about))
}

pub(super) fn object(about: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Object).description(Some(about))
}

/// One of these values.
pub(super) fn choice<'a>(about: &str, words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text(about).enum_values(Some(words))
}

pub(super) fn list(about: &str, items: impl Into<RefOr<Schema>>) -> Schema {
    ArrayBuilder::new().items(items.into()).description(Some(about)).build().into()
}

pub(super) fn reference(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// The same type or `null`, which means the default.
pub(super) fn or_null(builder: ObjectBuilder) -> Object {
    let mut object = builder.build();
    if let SchemaType::Type(known) = object.schema_type.clone() {
        object.schema_type = SchemaType::Array(vec![known, Type::Null]);
    }
    if let Some(words) = &mut object.enum_values {
        words.push(Value::Null);
    }
    object
}
