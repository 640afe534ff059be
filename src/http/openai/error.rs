//! Refusals in the form of OpenAI's API. Its libraries show `error.message` to people, and only if `error` is an object.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::request::ApiError;
use crate::http::surface::{FieldError, NotDrawn};

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("The model {name} is not here: this server has {known}.")]
    NoModel { name: String, known: String },
    #[error("The safety checker withheld every picture of this prompt.")]
    Blocked,
    /// The job ended without pictures. Another try would end the same way.
    #[error("{0}")]
    NotDrawn(String),
}

impl From<NotDrawn> for OpenAiError {
    fn from(error: NotDrawn) -> Self {
        match error {
            NotDrawn::Refused(error) => Self::Api(error),
            other => Self::NotDrawn(other.to_string()),
        }
    }
}

/// OpenAI's libraries send a request that failed with 500 twice more, unless this header says false. Each try would draw
/// the pictures again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

impl OpenAiError {
    /// The `error` object of an answer or an event.
    pub fn object(&self) -> Value {
        let status = self.status_code();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let (code, param) = match self {
            Self::Api(ApiError::Unauthorized) => (Some("invalid_api_key"), None),
            Self::Api(_) if status == StatusCode::TOO_MANY_REQUESTS => (Some("rate_limit_exceeded"), None),
            Self::Field(error) => (None, Some(error.field.as_str()).filter(|field| !field.is_empty())),
            Self::NoModel { .. } => (Some("model_not_found"), Some("model")),
            Self::Blocked => (Some("moderation_blocked"), Some("prompt")),
            Self::NotDrawn(_) => (Some("job_failed"), None),
            Self::Api(_) => (None, None),
        };
        json!({ "message": self.to_string(), "type": kind, "param": param, "code": code })
    }
}

impl ResponseError for OpenAiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Api(error) => error.status_code(),
            Self::Field(_) | Self::Blocked => StatusCode::BAD_REQUEST,
            Self::NoModel { .. } => StatusCode::NOT_FOUND,
            Self::NotDrawn(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = match self {
            // Its headers say when to try again, how to authenticate and which methods there are.
            Self::Api(error) => error.error_response(),
            _ => HttpResponse::build(self.status_code()).json(()),
        };
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.set_body(BoxBody::new(json!({ "error": self.object() }).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_500_is_to_be_tried_again_and_what_may_pass_is() {
        let busy = "The server is stopping; try again later.".to_owned();
        for (error, status, header) in [
            (OpenAiError::Api(ApiError::Internal), 500, Some("false")),
            (NotDrawn::Failed("The job failed.".to_owned()).into(), 500, Some("false")),
            (NotDrawn::Expired.into(), 500, Some("false")),
            (NotDrawn::Refused(ApiError::Internal).into(), 500, Some("false")),
            (NotDrawn::Refused(ApiError::Unavailable(busy)).into(), 503, None),
            (OpenAiError::Api(ApiError::TooManyQueued { limit: 1 }), 429, None),
            (OpenAiError::Blocked, 400, None),
        ] {
            let response = error.error_response();
            let found = response.headers().get(SHOULD_RETRY).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), found), (status, header), "{error}");
        }
    }
}
