//! Refusals in the form of OpenAI's API. Its libraries show `error.message` to people, and only if `error` is an object.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::request::ApiError;
use crate::http::surface::SurfaceError;

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenAiError(SurfaceError);

impl<E: Into<SurfaceError>> From<E> for OpenAiError {
    fn from(error: E) -> Self {
        Self(error.into())
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
        let (code, param) = match &self.0 {
            SurfaceError::Api(ApiError::Unauthorized) => (Some("invalid_api_key"), None),
            SurfaceError::Api(_) if status == StatusCode::TOO_MANY_REQUESTS => {
                (Some("rate_limit_exceeded"), None)
            }
            SurfaceError::Field(error) => {
                (None, Some(error.field.as_str()).filter(|field| !field.is_empty()))
            }
            SurfaceError::NoModel { .. } => (Some("model_not_found"), Some("model")),
            SurfaceError::Withheld => (Some("moderation_blocked"), Some("prompt")),
            SurfaceError::NotDrawn(_) => (Some("job_failed"), None),
            SurfaceError::Api(_) => (None, None),
        };
        json!({ "message": self.to_string(), "type": kind, "param": param, "code": code })
    }
}

impl ResponseError for OpenAiError {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = self.0.response(self.status_code(), &json!({ "error": self.object() }));
        if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::surface::NotDrawn;

    #[test]
    fn no_500_is_to_be_tried_again_and_what_may_pass_is() {
        let busy = "The server is stopping; try again later.".to_owned();
        let answers: [(OpenAiError, u16, Option<&str>); 7] = [
            (ApiError::Internal.into(), 500, Some("false")),
            (NotDrawn::Failed("The job failed.".to_owned()).into(), 500, Some("false")),
            (NotDrawn::Expired.into(), 500, Some("false")),
            (NotDrawn::Refused(ApiError::Internal).into(), 500, Some("false")),
            (NotDrawn::Refused(ApiError::Unavailable(busy)).into(), 503, None),
            (ApiError::TooManyQueued { limit: 1 }.into(), 429, None),
            (SurfaceError::Withheld.into(), 400, None),
        ];
        for (error, status, header) in answers {
            let response = error.error_response();
            let found = response.headers().get(SHOULD_RETRY).map(|value| value.to_str().unwrap());
            assert_eq!((response.status().as_u16(), found), (status, header), "{error}");
        }
    }
}
