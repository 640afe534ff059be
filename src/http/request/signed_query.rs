//! The `?expires=…&signature=…` of a signed URL, which replaces the key.

use actix_web::{HttpRequest, web};
use serde::Deserialize;

use super::ApiError;

/// The query of a signed URL. Any spelling other than ours is refused.
pub struct SignedQuery {
    /// Seconds since the epoch.
    pub expires: i64,
    pub signature: String,
}

#[derive(Deserialize)]
struct Fields {
    expires: Option<String>,
    signature: Option<String>,
}

impl SignedQuery {
    /// `None` if the query has neither field.
    pub fn find(request: &HttpRequest) -> Result<Option<Self>, ApiError> {
        let fields = web::Query::<Fields>::from_query(request.query_string())
            .map_err(|_| ApiError::BadSignature)?
            .into_inner();
        match fields {
            Fields { expires: None, signature: None } => Ok(None),
            Fields { expires: Some(expires), signature: Some(signature) } => {
                let expires = canonical(&expires).ok_or(ApiError::BadSignature)?;
                Ok(Some(Self { expires, signature }))
            }
            _ => Err(ApiError::BadSignature),
        }
    }
}

/// A number in the one spelling that we write: no sign, no leading zeros.
pub fn canonical<N: std::str::FromStr + ToString>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}
