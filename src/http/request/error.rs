//! Every refusal: one status and one sentence each, never SQL, paths or backtraces.

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

use super::limits::Refusal;
use crate::domain::Violations;
use crate::queue::QueueError;

/// Why a client does not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{0}")]
    BadRequest(String),
    #[error("The request body has more JSON values than any request needs.")]
    TooManyValues,
    #[error("{0}")]
    Invalid(#[from] Violations),
    #[error("No valid API key: send one as `Authorization: Bearer KEY`.")]
    Unauthorized,
    #[error("The signature of this URL is not valid.")]
    BadSignature,
    #[error("This URL has expired: request a new one.")]
    Expired,
    #[error(
        "A page of another site sent this request: allow its origin with --cors-origins, or send an API key."
    )]
    AnotherSite,
    #[error(
        "This server does not know the host name of this request: add it with --hosts, or require an API key."
    )]
    UnknownHost,
    #[error("{0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Missing(String),
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Conflict(String),
    #[error("This route accepts {allowed}.")]
    MethodNotAllowed { allowed: &'static str },
    #[error("This Idempotency-Key was already used for another request: use a new key for each request.")]
    KeyReused,
    #[error("The request body arrived too slowly.")]
    BodyTooSlow,
    #[error("The request body is too large: this operation accepts up to {limit} bytes.")]
    BodyTooLarge { limit: usize },
    #[error(
        "Too many {operation} requests: the limit is {limit} in 10 seconds; try again in {retry_after_s} s."
    )]
    RateLimited { operation: &'static str, limit: u32, retry_after_s: u64 },
    #[error(
        "Too many {operation} requests at once: the limit is {limit}; try again when one has been answered."
    )]
    TooManyAtOnce { operation: &'static str, limit: u32 },
    #[error("Too many wrong API keys from this address: try again in {retry_after_s} s.")]
    LockedOut { retry_after_s: u64 },
    #[error("The queue is full: {limit} jobs are waiting; try again later.")]
    TooManyQueued { limit: u64 },
    #[error("The queue is full: the inputs of the jobs that wait take {limit} bytes; try again later.")]
    TooManyBytesQueued { limit: u64 },
    #[error("The server receives too many request bodies at once: try again in 2 s.")]
    TooManyBodies,
    #[error("{0}")]
    Unavailable(String),
    #[error("Internal server error: the server's log has the details.")]
    Internal,
}

impl ApiError {
    pub const NO_JOB: Self = Self::NotFound("No such job: it never existed, or it has been deleted.");
    pub const NO_IMAGE: Self = Self::NotFound("No such image: it never existed, or it has been deleted.");
    pub const NO_ENDPOINT: Self = Self::NotFound("No such endpoint on this server.");
    pub const NO_ROUTE: Self = Self::NotFound("No such route.");
}

impl ApiError {
    /// After how many seconds a retry may succeed.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after_s, .. } | Self::LockedOut { retry_after_s } => {
                Some(*retry_after_s)
            }
            Self::TooManyAtOnce { .. } => Some(1),
            Self::TooManyQueued { .. } | Self::TooManyBytesQueued { .. } => Some(10),
            Self::TooManyBodies | Self::Unavailable(_) => Some(2),
            _ => None,
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::TooManyValues | Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::BadSignature
            | Self::Expired
            | Self::AnotherSite
            | Self::UnknownHost
            | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::KeyReused | Self::Conflict(_) => StatusCode::CONFLICT,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited { .. }
            | Self::TooManyAtOnce { .. }
            | Self::LockedOut { .. }
            | Self::TooManyQueued { .. }
            | Self::TooManyBytesQueued { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooManyBodies | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
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
            // The rest of the body is not worth reading.
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
            Refusal::Keyless { limit, retry_after_s } => {
                Self::RateLimited { operation: "keyless", limit, retry_after_s }
            }
            Refusal::AtOnce { operation, limit } => {
                Self::TooManyAtOnce { operation: operation.name(), limit }
            }
            Refusal::LockedOut { retry_after_s } => Self::LockedOut { retry_after_s },
        }
    }
}

impl From<QueueError> for ApiError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::TooManyQueued { limit } => Self::TooManyQueued { limit },
            QueueError::TooManyBytesQueued { limit } => Self::TooManyBytesQueued { limit },
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
