//! Refusals in the form of Hugging Face's API: `{"error": sentence}`.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use crate::http::request::ApiError;
use crate::http::surface::{FieldError, NotDrawn};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum HuggingFaceError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("The model {name} is not here: this server has {known}.")]
    NoModel { name: String, known: String },
    #[error("The safety checker withheld the picture.")]
    Withheld,
    #[error("{0}")]
    NotDrawn(String),
}

impl From<NotDrawn> for HuggingFaceError {
    fn from(error: NotDrawn) -> Self {
        match error {
            NotDrawn::Refused(error) => Self::Api(error),
            other => Self::NotDrawn(other.to_string()),
        }
    }
}

impl ResponseError for HuggingFaceError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Api(error) => error.status_code(),
            Self::Field(_) | Self::Withheld => StatusCode::BAD_REQUEST,
            Self::NoModel { .. } => StatusCode::NOT_FOUND,
            Self::NotDrawn(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let response = match self {
            // Its headers say when to try again, how to authenticate and which methods there are.
            Self::Api(error) => error.error_response(),
            _ => HttpResponse::build(self.status_code()).json(()),
        };
        response.set_body(BoxBody::new(json!({ "error": self.to_string() }).to_string()))
    }
}
