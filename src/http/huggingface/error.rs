//! Refusals in the form of Hugging Face's API: `{"error": sentence}`.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::http::surface::SurfaceError;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct HuggingFaceError(SurfaceError);

impl<E: Into<SurfaceError>> From<E> for HuggingFaceError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl ResponseError for HuggingFaceError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        self.0.response(self.status_code(), &json!({ "error": self.to_string() }))
    }
}
