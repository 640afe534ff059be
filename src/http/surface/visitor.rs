//! Who uses a surface: a client with a key, or anyone where the surface is open; within its limits.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use super::Dialect;
use crate::http::request::{ApiError, ApiKey, Caller, InFlight, enter};

/// Proof that the request was let in. A handler that takes one refuses all others, in the surface's form.
pub struct Visitor<D> {
    /// For whom the limits count it.
    pub caller: Caller,
    /// Held while the request is in flight.
    pub in_flight: InFlight,
    dialect: PhantomData<D>,
}

impl<D: Dialect> Visitor<D> {
    fn let_in(request: &HttpRequest) -> Result<Self, ApiError> {
        let key = ApiKey::for_surface(request, D::SURFACE)?;
        let caller = key.caller(request);
        Ok(Self { caller, in_flight: enter(&key, request)?, dialect: PhantomData })
    }
}

impl<D: Dialect> FromRequest for Visitor<D> {
    type Error = D::Error;
    type Future = Ready<Result<Self, D::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::let_in(request).map_err(D::Error::from))
    }
}
