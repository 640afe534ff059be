//! What a path names: an endpoint of this server, and perhaps a job of it.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::{Api, ApiError, ApiKey, Operation, Turn};
use crate::domain::{EndpointId, InputRules, JobId};

/// The `{endpoint}` of a path, open to this caller, known here, and within the caller's limits.
pub struct Endpoint {
    pub id: EndpointId,
    pub rules: InputRules,
    /// Whose request it is.
    pub key: ApiKey,
    /// Held for as long as the request is under way.
    pub turn: Turn,
}

impl Endpoint {
    /// The endpoint alone; the image route, which takes a signature for a key, starts here.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
        let id = EndpointId::new(request.match_info().get("endpoint").unwrap_or_default());
        let rules = api.endpoints.get(&id).ok_or(ApiError::NO_ENDPOINT)?.clone();
        Ok(Self { id, rules, key: ApiKey(None), turn: Turn::default() })
    }
}

impl FromRequest for Endpoint {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // The key first: a stranger learns nothing about what is served here.
        let admitted = ApiKey::from_request(request, payload).into_inner();
        ready(admitted.and_then(|key| {
            let turn = turn(&key, request)?;
            Ok(Self { key, turn, ..Self::of(request)? })
        }))
    }
}

/// Counts the request against what its key may ask of this route's operation.
fn turn(key: &ApiKey, request: &HttpRequest) -> Result<Turn, ApiError> {
    let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
    match request.app_data::<Operation>() {
        Some(operation) => Ok(api.limiter.enter(key.caller(request), *operation)?),
        None => Ok(Turn::default()),
    }
}

/// The `{endpoint}` and `{id}` of a path. What can be no job's name is no job: 404.
pub struct JobPath {
    pub endpoint: EndpointId,
    pub id: JobId,
    /// Held for as long as the request is under way.
    pub turn: Turn,
}

impl FromRequest for JobPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let endpoint = Endpoint::from_request(request, payload).into_inner();
        ready(endpoint.and_then(|endpoint| {
            let id = request.match_info().get("id").and_then(JobId::parse).ok_or(ApiError::NO_JOB)?;
            Ok(Self { endpoint: endpoint.id, id, turn: endpoint.turn })
        }))
    }
}
