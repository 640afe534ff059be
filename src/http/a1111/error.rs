//! Refusals in the form of A1111's API, which are those of its framework. Its clients show the text or the status.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::surface::SurfaceError;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum A1111Error {
    #[error(transparent)]
    Shared(SurfaceError),
    /// What was asked for is not here, and without it another picture would come out.
    #[error("{0}")]
    Unsupported(String),
    /// A1111's own words.
    #[error("Init image not found")]
    NoInitImage,
}

impl<E: Into<SurfaceError>> From<E> for A1111Error {
    fn from(error: E) -> Self {
        Self::Shared(error.into())
    }
}

impl A1111Error {
    fn body(&self) -> Value {
        let sentence = self.to_string();
        match self {
            Self::Shared(SurfaceError::Field(error)) => {
                json!({ "detail": [{ "loc": ["body", error.field], "msg": sentence, "type": "value_error" }] })
            }
            _ => json!({ "error": "HTTPException", "detail": sentence, "body": "", "errors": sentence }),
        }
    }
}

impl ResponseError for A1111Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Shared(SurfaceError::Field(_)) | Self::Unsupported(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Shared(error) => error.status_code(),
            Self::NoInitImage => StatusCode::NOT_FOUND,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = match self {
            Self::Shared(error) => error.response(self.status_code(), &self.body()),
            _ => HttpResponse::build(self.status_code()).json(self.body()),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            // The clients that can authenticate do it so, some of them only when they are asked.
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"stablehand\", charset=\"UTF-8\""),
            );
        }
        response
    }
}
