//! Refusals. A tool's are text in its result, where the language model reads them; all others are HTTP's, with an error of
//! JSON-RPC as the body.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::request::ApiError;
use crate::http::surface::SurfaceError;

/// JSON-RPC's codes.
const PARSE_ERROR: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const INTERNAL_ERROR: i32 = -32_603;

/// Why there is no answer, or no picture.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    #[error(transparent)]
    Shared(SurfaceError),
    #[error("The message is not valid JSON: {0}.")]
    NoJson(serde_json::Error),
    #[error("{0}")]
    BadMessage(&'static str),
    /// `rmcp` refuses the request.
    #[error("{sentence}.")]
    Protocol { status: StatusCode, sentence: String },
    #[error("There is no such session: it was ended or unused for long. Initialize a new one.")]
    NoSession,
}

/// The refusal of methods that the route does not accept.
pub fn other_method() -> McpError {
    ApiError::MethodNotAllowed { allowed: "POST, DELETE" }.into()
}

impl<E: Into<SurfaceError>> From<E> for McpError {
    fn from(error: E) -> Self {
        Self::Shared(error.into())
    }
}

impl McpError {
    fn code(&self) -> i32 {
        match self {
            Self::NoJson(_) => PARSE_ERROR,
            _ if self.status_code().is_server_error() => INTERNAL_ERROR,
            _ => INVALID_REQUEST,
        }
    }
}

impl ResponseError for McpError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Shared(error) => error.status_code(),
            Self::Protocol { status, .. } => *status,
            Self::NoSession => StatusCode::NOT_FOUND,
            Self::NoJson(_) | Self::BadMessage(_) => StatusCode::BAD_REQUEST,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let error = json!({ "code": self.code(), "message": self.to_string() });
        let body = json!({ "jsonrpc": "2.0", "id": Value::Null, "error": error });
        match self {
            Self::Shared(error) => error.response(self.status_code(), &body),
            _ => HttpResponse::build(self.status_code()).json(body),
        }
    }
}
