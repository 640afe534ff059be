//! The `Idempotency-Key` header of run and runsync.

use actix_web::HttpRequest;

use super::{ApiError, Endpoint};
use crate::domain::Idempotency;

/// The key under which this request may be sent again, if the client sent one.
pub fn from_request(
    request: &HttpRequest,
    endpoint: &Endpoint,
    body: &[u8],
) -> Result<Option<Idempotency>, ApiError> {
    let mut values = request.headers().get_all("Idempotency-Key");
    let Some(key) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::BadRequest("Send the Idempotency-Key header only once.".to_owned()));
    }
    let caller = endpoint.key.0.as_ref().map_or(&[][..], |hash| hash);
    Idempotency::new(caller, &endpoint.id, key.as_bytes(), body)
        .map(Some)
        .map_err(|error| ApiError::BadRequest(error.to_string()))
}
