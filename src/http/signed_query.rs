//! The `?expires=…&signature=…` that stands in for a key.

use actix_web::{HttpRequest, web};
use serde::Deserialize;

use super::ApiError;

/// What a signed URL's query says. Whatever is not to the letter what we signed, we did not sign.
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
    /// None where the query speaks of no signature at all.
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
