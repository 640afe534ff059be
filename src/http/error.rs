//! Every way to say no: one status and one sentence each, never SQL, paths or backtraces.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use super::limits::Refusal;
use crate::domain::Violations;
use crate::queue::QueueError;

/// What a client is told when it does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    Invalid(#[from] Violations),
    #[error("No valid API key: send one as `Authorization: Bearer KEY`.")]
    Unauthorized,
    #[error("This URL is not one that this server signed.")]
    BadSignature,
    #[error("This URL has expired: ask for a new one.")]
    Expired,
    #[error("{0}")]
    NotFound(&'static str),
    #[error("This route takes {allowed}.")]
    MethodNotAllowed { allowed: &'static str },
    #[error("This Idempotency-Key was used for another request: send each request under a key of its own.")]
    KeyReused,
    #[error("The request body came too slowly.")]
    BodyTooSlow,
    #[error("The request body is larger than {limit} bytes, the most that this operation takes.")]
    BodyTooLarge { limit: usize },
    #[error("{limit} {operation} requests in 10 seconds are a key's limit: try again in {retry_after_s} s.")]
    RateLimited { operation: &'static str, limit: u32, retry_after_s: u64 },
    #[error("{limit} {operation} requests at once are a key's limit: try again once one has been answered.")]
    TooManyAtOnce { operation: &'static str, limit: u32 },
    #[error(
        "Too many requests without a valid API key came from this address: try again in {retry_after_s} s."
    )]
    TooManyStrangers { retry_after_s: u64 },
    #[error("{limit} jobs are waiting already, the most that this server queues: try again later.")]
    TooManyQueued { limit: u64 },
    #[error("{0}")]
    Unavailable(String),
    #[error("Something went wrong inside the server; its log says what.")]
    Internal,
}

impl ApiError {
    pub const NO_JOB: Self = Self::NotFound("No such job: it never was here, or it has been forgotten.");
    pub const NO_IMAGE: Self = Self::NotFound("No such image: it never was here, or it has been forgotten.");
    pub const NO_ENDPOINT: Self = Self::NotFound("No such endpoint on this server.");
    pub const NO_ROUTE: Self = Self::NotFound("No such route.");
}

impl ApiError {
    /// When it may be worth trying again.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_s, .. } | Self::TooManyStrangers { retry_after_s } => {
                Some(*retry_after_s)
            }
            Self::TooManyAtOnce { .. } => Some(1),
            Self::TooManyQueued { .. } => Some(10),
            Self::Unavailable(_) => Some(2),
            _ => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BadSignature | Self::Expired => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeyReused => StatusCode::CONFLICT,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited { .. }
            | Self::TooManyAtOnce { .. }
            | Self::TooManyStrangers { .. }
            | Self::TooManyQueued { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(seconds) = self.retry_after_s() {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        match self {
            Self::Unauthorized => {
                response.insert_header((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
            }
            Self::MethodNotAllowed { allowed } => {
                response.insert_header((header::ALLOW, HeaderValue::from_static(allowed)));
            }
            // What is left of the body is not worth reading.
            Self::BodyTooSlow | Self::BodyTooLarge { .. } => {
                response.force_close();
            }
            _ => {}
        }
        response.json(json!({ "error": self.to_string() }))
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Window { operation, limit, retry_after_s } => {
                Self::RateLimited { operation: operation.name(), limit, retry_after_s }
            }
            Refusal::AtOnce { operation, limit } => {
                Self::TooManyAtOnce { operation: operation.name(), limit }
            }
            Refusal::Strangers { retry_after_s } => Self::TooManyStrangers { retry_after_s },
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooManyQueued { limit } => Self::TooManyQueued { limit },
            QueueError::KeyReused => Self::KeyReused,
            QueueError::Unavailable(sentence) => {
                tracing::warn!(reason = %sentence, "the queue is unavailable");
                Self::Unavailable(sentence)
            }
            error @ QueueError::Internal(_) => {
                tracing::error!(%error, "the queue failed");
                Self::Internal
            }
        }
    }
}
