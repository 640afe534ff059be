//! Refusals in the form of A1111's API, which are those of its framework. Its clients show the text or the status.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::request::ApiError;
use crate::http::surface::{FieldError, NotDrawn};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum A1111Error {
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A field is not valid.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// What was asked for is not here, and without it another picture would come out.
    #[error("{0}")]
    Unsupported(String),
    /// A1111's own words.
    #[error("Init image not found")]
    NoInitImage,
    /// The job ended without pictures.
    #[error("{0}")]
    NotDrawn(String),
}

impl From<NotDrawn> for A1111Error {
    fn from(error: NotDrawn) -> Self {
        match error {
            NotDrawn::Refused(error) => Self::Api(error),
            other => Self::NotDrawn(other.to_string()),
        }
    }
}

impl A1111Error {
    fn body(&self) -> Value {
        let sentence = self.to_string();
        match self {
            Self::Field(error) => {
                json!({ "detail": [{ "loc": ["body", error.field], "msg": sentence, "type": "value_error" }] })
            }
            _ => json!({ "error": "HTTPException", "detail": sentence, "body": "", "errors": sentence }),
        }
    }
}

impl ResponseError for A1111Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Api(error) => error.status_code(),
            Self::Field(_) | Self::Unsupported(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NoInitImage => StatusCode::NOT_FOUND,
            Self::NotDrawn(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = match self {
            // Its headers say when to try again and which methods there are.
            Self::Api(error) => error.error_response(),
            _ => HttpResponse::build(self.status_code()).json(()),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            // The clients that can authenticate do it so, some of them only when they are asked.
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"stablehand\", charset=\"UTF-8\""),
            );
        }
        response.set_body(BoxBody::new(self.body().to_string()))
    }
}
