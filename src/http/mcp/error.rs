//! Refusals. A tool's are text in its result, where the language model reads them; all others are HTTP's, with an error of
//! JSON-RPC as the body.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, ResponseError};
use serde_json::{Value, json};

use crate::http::request::ApiError;
use crate::http::surface::{FieldError, NotDrawn};

/// JSON-RPC's codes.
const PARSE_ERROR: i32 = -32_700;
const INVALID_REQUEST: i32 = -32_600;
const INTERNAL_ERROR: i32 = -32_603;

/// Why there is no answer, or no picture.
#[derive(Debug, thiserror::Error)]
pub enum McpError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("The message is not valid JSON: {0}.")]
    NoJson(serde_json::Error),
    #[error("{0}")]
    BadMessage(&'static str),
    #[error("There is no such session: it was ended or unused for long. Initialize a new one.")]
    NoSession,
    #[error("There is no model {name} on this server. It has {known}.")]
    NoModel { name: String, known: String },
    #[error("The safety checker withheld every picture of this prompt.")]
    Blocked,
    /// The job ended without pictures.
    #[error("{0}")]
    NotDrawn(String),
}

/// The refusal of methods that the route does not accept.
pub fn other_method() -> McpError {
    ApiError::MethodNotAllowed { allowed: "POST, DELETE" }.into()
}

impl From<NotDrawn> for McpError {
    fn from(error: NotDrawn) -> Self {
        match error {
            NotDrawn::Refused(error) => Self::Api(error),
            other => Self::NotDrawn(other.to_string()),
        }
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
            Self::Api(error) => error.status_code(),
            Self::NoSession | Self::NoModel { .. } => StatusCode::NOT_FOUND,
            Self::Field(_) | Self::NoJson(_) | Self::BadMessage(_) | Self::Blocked => StatusCode::BAD_REQUEST,
            Self::NotDrawn(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let response = match self {
            // Its headers say when to try again, how to authenticate and which methods there are.
            Self::Api(error) => error.error_response(),
            _ => HttpResponse::build(self.status_code()).content_type(ContentType::json()).finish(),
        };
        let error = json!({ "code": self.code(), "message": self.to_string() });
        let body = json!({ "jsonrpc": "2.0", "id": Value::Null, "error": error });
        response.set_body(BoxBody::new(body.to_string()))
    }
}
