//! What a path names: an endpoint of this server, and perhaps one of its jobs.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::{Api, ApiError, ApiKey, InFlight, Operation};
use crate::domain::{EndpointId, InputRules, JobId};

/// The `{endpoint}` of a path: it exists, the caller has a key, and the caller is within its limits.
pub struct Endpoint {
    pub id: EndpointId,
    pub rules: InputRules,
    /// The key that the request came with.
    pub key: ApiKey,
    /// Held while the request is in flight.
    pub in_flight: InFlight,
}

impl Endpoint {
    /// The endpoint without the check of a key, for routes that accept a signature.
    pub fn from_path(request: &HttpRequest) -> Result<Self, ApiError> {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
        let id = EndpointId::new(request.match_info().get("endpoint").unwrap_or_default());
        let rules = api.endpoints.get(&id).ok_or(ApiError::NO_ENDPOINT)?.rules.clone();
        Ok(Self { id, rules, key: ApiKey(None), in_flight: InFlight::default() })
    }
}

impl FromRequest for Endpoint {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // The key first: without one, a client learns nothing about what is served here.
        let admitted = ApiKey::from_request(request, payload).into_inner();
        ready(admitted.and_then(|key| {
            let in_flight = enter(&key, request)?;
            Ok(Self { key, in_flight, ..Self::from_path(request)? })
        }))
    }
}

/// Counts the request against the caller's limit for this route's operation.
pub(in crate::http) fn enter(key: &ApiKey, request: &HttpRequest) -> Result<InFlight, ApiError> {
    let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
    match request.app_data::<Operation>() {
        Some(operation) => Ok(api.limiter.enter(key.caller(request), *operation)?),
        None => Ok(InFlight::default()),
    }
}

/// The `{endpoint}` and `{id}` of a path. Text that cannot be a job's id is a 404.
pub struct JobPath {
    pub endpoint: EndpointId,
    pub id: JobId,
    /// Held while the request is in flight.
    pub in_flight: InFlight,
}

impl FromRequest for JobPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let endpoint = Endpoint::from_request(request, payload).into_inner();
        ready(endpoint.and_then(|endpoint| {
            let id = request.match_info().get("id").and_then(JobId::parse).ok_or(ApiError::NO_JOB)?;
            Ok(Self { endpoint: endpoint.id, id, in_flight: endpoint.in_flight })
        }))
    }
}
