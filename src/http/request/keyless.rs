//! Readers of what needs no key: the page and the documentation.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::{Api, ApiError, limits};

/// Proof that the request's address is within its limit. A handler that takes one refuses all others.
pub struct Keyless;

impl FromRequest for Keyless {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal);
        ready(api.and_then(|api| {
            api.limiter.enter_keyless(limits::address(request))?;
            Ok(Self)
        }))
    }
}
