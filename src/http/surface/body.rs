//! Reads a request's JSON, whatever its Content-Type says: some clients send none, or `text/plain`.

use actix_web::web::Bytes;
use serde_json::Value;

use super::{Fields, heavy};
use crate::http::request::{ApiError, has_few_values, is_quickly_read};

/// The fields of a JSON object. An empty body and `null` are an object without fields.
pub fn json(body: &[u8]) -> Result<Fields, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(Fields::default());
    }
    if !has_few_values(body) {
        return Err(ApiError::TooManyValues);
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(Fields::new(fields)),
        Ok(Value::Null) => Ok(Fields::default()),
        Ok(_) => Err(ApiError::BadRequest(
            r#"The request body should be a JSON object, such as {"prompt": "a dog"}."#.to_owned(),
        )),
        // The error names a place and quotes nothing.
        Err(error) => Err(ApiError::BadRequest(format!("The request body is not valid JSON: {error}."))),
    }
}

/// Runs `work` on a body: here if that is quick, otherwise as heavy work.
pub async fn on_body<T: Send + 'static, E: From<ApiError> + Send + 'static>(
    body: Bytes,
    work: impl FnOnce(Bytes) -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    if is_quickly_read(&body) {
        return work(body);
    }
    heavy(move || work(body)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_body_has_no_fields_and_a_bad_one_is_refused_without_repeating_it() {
        for body in ["", "  \n", "null", "{}"] {
            assert_eq!(json(body.as_bytes()).unwrap().name_of(&["a"]), None, "{body}");
        }
        for body in ["[\"secret\"]", "\"secret\"", "{\"secret\"", "secret", &"[".repeat(100_000)] {
            let sentence = json(body.as_bytes()).unwrap_err().to_string();
            assert!(sentence.starts_with("The request body") && !sentence.contains("secret"), "{sentence}");
        }
    }
}
