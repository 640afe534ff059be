//! API keys, and the extractor that requires one.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::limits::{self, Caller};
use super::{Api, ApiError};

type KeyHash = [u8; 32];

/// The accepted keys, kept as hashes only.
#[derive(Clone)]
pub struct ApiKeys(Option<Vec<KeyHash>>);

impl ApiKeys {
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(Some(keys.into_iter().map(hash).collect()))
    }

    /// Accepts every request, with or without a key.
    pub fn off() -> Self {
        Self(None)
    }

    /// Compares with every key even after a match, so that the time taken reveals nothing.
    fn admit(&self, authorization: Option<&str>) -> Option<ApiKey> {
        let Some(known) = &self.0 else {
            return Some(ApiKey(None));
        };
        let presented = hash(presented_key(authorization?)?);
        let matched = known.iter().fold(Choice::from(0), |found, key| found | key.ct_eq(&presented));
        bool::from(matched).then_some(ApiKey(Some(presented)))
    }
}

fn hash(key: &str) -> KeyHash {
    Sha256::digest(key.as_bytes()).into()
}

/// The key in `KEY`, `Bearer KEY` or `bearer KEY`: published clients send all three.
fn presented_key(header: &str) -> Option<&str> {
    let header = header.trim();
    let key = match header.split_once(char::is_whitespace) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        Some(_) => return None,
        None => header,
    };
    (!key.is_empty()).then_some(key)
}

/// Proof that a request came with a valid key. A handler that takes one refuses all other requests.
#[derive(Debug, Clone)]
pub struct ApiKey(
    /// The key's hash, which the limits count by; `None` where authentication is off.
    pub Option<KeyHash>,
);

impl ApiKey {
    fn authenticate(request: &HttpRequest) -> Result<Self, ApiError> {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
        let address = limits::address(request);
        api.limiter.lockout.check(address)?;
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(key) = api.keys.admit(header) {
            return Ok(key);
        }
        api.limiter.lockout.record_failure(address)?;
        Err(ApiError::Unauthorized)
    }

    /// The caller for whom the limits count this request.
    pub fn caller(&self, request: &HttpRequest) -> Caller {
        self.0.map_or_else(|| Caller::Address(limits::address(request)), Caller::Key)
    }
}

impl FromRequest for ApiKey {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::authenticate(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_form_of_the_header_is_accepted() {
        let keys = ApiKeys::new(["other", "sesame"]);
        for header in ["sesame", "Bearer sesame", "bearer sesame", "BEARER   sesame ", " sesame "] {
            assert!(keys.admit(Some(header)).is_some(), "{header}");
        }
        for header in ["", "Bearer", "Bearer ", "Basic sesame", "sesam", "sesame2", "Bearer other sesame"] {
            assert!(keys.admit(Some(header)).is_none(), "{header}");
        }
        assert!(keys.admit(None).is_none());
        assert!(ApiKeys::off().admit(None).is_some());
        assert!(ApiKeys::new([]).admit(Some("sesame")).is_none());
    }
}
