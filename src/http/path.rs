//! What a path names: an endpoint of this server, and perhaps a job of it.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::{Api, ApiError, ApiKey};
use crate::domain::{EndpointId, InputRules, JobId};

/// The `{endpoint}` of a path, open to this caller and known here.
pub struct Endpoint {
    pub id: EndpointId,
    pub rules: InputRules,
    /// Whose request it is.
    pub key: ApiKey,
}

impl Endpoint {
    /// The endpoint alone; the image route, which takes a signature for a key, starts here.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
        let id = EndpointId::new(request.match_info().get("endpoint").unwrap_or_default());
        let rules = api.endpoints.get(&id).ok_or(ApiError::NO_ENDPOINT)?.clone();
        Ok(Self { id, rules, key: ApiKey(None) })
    }
}

impl FromRequest for Endpoint {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        // The key first: a stranger learns nothing about what is served here.
        let admitted = ApiKey::from_request(request, payload).into_inner();
        ready(admitted.and_then(|key| Ok(Self { key, ..Self::of(request)? })))
    }
}

/// The `{endpoint}` and `{id}` of a path. What can be no job's name is no job: 404.
pub struct JobPath {
    pub endpoint: EndpointId,
    pub id: JobId,
}

impl FromRequest for JobPath {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let endpoint = Endpoint::from_request(request, payload).into_inner();
        ready(endpoint.and_then(|endpoint| {
            let id = request.match_info().get("id").and_then(JobId::parse).ok_or(ApiError::NO_JOB)?;
            Ok(Self { endpoint: endpoint.id, id })
        }))
    }
}
