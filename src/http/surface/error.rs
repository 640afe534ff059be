//! Why a surface answers no picture. Each surface writes it in the form that its clients read.

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;

use super::{FieldError, NotDrawn};
use crate::http::request::{ApiError, Endpoints};

/// The refusals that all surfaces have.
#[derive(Debug, thiserror::Error)]
pub enum SurfaceError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("The model {name} is not here: this server has {known}.")]
    NoModel { name: String, known: String },
    #[error("The safety checker withheld every picture of this prompt.")]
    Withheld,
    /// The job ended without pictures. Another try would end the same way.
    #[error("{0}")]
    NotDrawn(String),
}

impl SurfaceError {
    /// The refusal of a model that no endpoint has. `name` is the client's text.
    pub fn no_model(name: &str, endpoints: &Endpoints) -> Self {
        let name = name.chars().filter(|c| !c.is_control()).take(64).collect();
        Self::NoModel { name, known: endpoints.names().join(", ") }
    }

    pub fn status_code(&self) -> StatusCode {
        match self {
            Self::Api(error) => error.status_code(),
            Self::Field(_) | Self::Withheld => StatusCode::BAD_REQUEST,
            Self::NoModel { .. } => StatusCode::NOT_FOUND,
            Self::NotDrawn(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The answer: `body` with this status. A refusal of the server itself keeps its headers: they say when to try again, how
    /// to authenticate and which methods there are.
    pub fn response(&self, status: StatusCode, body: &Value) -> HttpResponse {
        let response = match self {
            Self::Api(error) => error.error_response(),
            _ => HttpResponse::build(status).json(()),
        };
        response.set_body(BoxBody::new(body.to_string()))
    }
}

impl From<NotDrawn> for SurfaceError {
    fn from(error: NotDrawn) -> Self {
        match error {
            NotDrawn::Refused(error) => Self::Api(error),
            other => Self::NotDrawn(other.to_string()),
        }
    }
}
