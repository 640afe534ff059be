//! API keys, and the extractor that requires one. Clients of other APIs send their keys in more forms, and may need none.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::limits::{self, Caller};
use super::{Api, ApiError, Surface, browser, proxies};

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

    /// The proof of the first of these texts that is a key. Compares with every key even after a match, so that the time
    /// taken reveals nothing.
    fn admit_one_of<'a>(&self, presented: impl IntoIterator<Item = &'a str>) -> Option<ApiKey> {
        let Some(known) = &self.0 else {
            return Some(ApiKey(None));
        };
        presented.into_iter().map(hash).find_map(|presented| {
            let matched = known.iter().fold(Choice::from(0), |found, key| found | key.ct_eq(&presented));
            bool::from(matched).then_some(ApiKey(Some(presented)))
        })
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

/// Every text of a request to a surface that may be its key. OpenAI's clients send `Bearer`, Azure's `api-key`. A1111's
/// send `Basic` with the key as password, as user name or as both.
fn presented_to_surface(request: &HttpRequest) -> Vec<String> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let mut presented = Vec::new();
    if let Some(authorization) = header(AUTHORIZATION.as_str()) {
        match authorization.trim().split_once(char::is_whitespace) {
            Some((scheme, encoded)) if scheme.eq_ignore_ascii_case("basic") => {
                presented.extend(basic(encoded.trim()));
            }
            _ => presented.extend(presented_key(authorization).map(str::to_owned)),
        }
    }
    presented.extend(header("api-key").map(|key| key.trim().to_owned()));
    presented
}

/// The password, the user name and the whole of `user:password`, as far as they say anything.
fn basic(encoded: &str) -> Vec<String> {
    let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
    let Some(text) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()) else { return Vec::new() };
    let parts = text.split_once(':').map_or(vec![], |(user, password)| vec![password, user]);
    parts.into_iter().chain([text.as_str()]).filter(|part| !part.is_empty()).map(str::to_owned).collect()
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
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let presented = header.and_then(presented_key);
        let key = slowly(request, api, presented.is_some(), || api.keys.admit_one_of(presented))?;
        if key.0.is_none() {
            browser::check(request, api)?;
        }
        Ok(key)
    }

    /// The same for a request to a surface. Where that is open, a request without a valid key is let in too.
    pub fn for_surface(request: &HttpRequest, surface: Surface) -> Result<Self, ApiError> {
        let api = request.app_data::<web::Data<Api>>().ok_or(ApiError::Internal)?;
        let presented = presented_to_surface(request);
        let admitted = || api.keys.admit_one_of(presented.iter().map(String::as_str));
        let is_open = api.settings.open_surfaces.admit(surface, proxies::client_address(request));
        if is_open && browser::check(request, api).is_ok() {
            // Many clients cannot leave the key out and send any text: a wrong one is no guess here.
            return Ok(admitted().unwrap_or(Self(None)));
        }
        let key = slowly(request, api, !presented.is_empty(), admitted)?;
        if key.0.is_none() {
            browser::check(request, api)?;
        }
        Ok(key)
    }

    /// The caller for whom the limits count this request.
    pub fn caller(&self, request: &HttpRequest) -> Caller {
        self.0.map_or_else(|| Caller::Address(limits::address(request)), Caller::Key)
    }
}

/// The key that `admitted` finds. Wrong keys cost their address time, so that guessing one is slow. A request without any
/// key is no guess: every page in a user's browser can send those.
fn slowly(
    request: &HttpRequest,
    api: &Api,
    has_presented: bool,
    admitted: impl FnOnce() -> Option<ApiKey>,
) -> Result<ApiKey, ApiError> {
    let address = limits::address(request);
    let lockout = &api.limiter.lockout;
    if has_presented {
        lockout.check(address)?;
    }
    match admitted() {
        Some(key) => {
            if key.0.is_some() {
                lockout.record_success(address);
            }
            Ok(key)
        }
        None if has_presented => {
            lockout.record_failure(address)?;
            Err(ApiError::Unauthorized)
        }
        None => Err(ApiError::Unauthorized),
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
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn every_published_form_of_the_header_is_accepted() {
        let admit = |keys: &ApiKeys, header: Option<&str>| keys.admit_one_of(header.and_then(presented_key));
        let keys = ApiKeys::new(["other", "sesame"]);
        for header in ["sesame", "Bearer sesame", "bearer sesame", "BEARER   sesame ", " sesame "] {
            assert!(admit(&keys, Some(header)).is_some(), "{header}");
        }
        for header in ["", "Bearer", "Bearer ", "Basic sesame", "sesam", "sesame2", "Bearer other sesame"] {
            assert!(admit(&keys, Some(header)).is_none(), "{header}");
        }
        assert!(admit(&keys, None).is_none());
        assert!(admit(&ApiKeys::off(), None).is_some());
        assert!(admit(&ApiKeys::new([]), Some("sesame")).is_none());
    }

    fn admits_to_surface(name: &str, value: &str) -> bool {
        let request = TestRequest::default().insert_header((name, value)).to_http_request();
        let presented = presented_to_surface(&request);
        ApiKeys::new(["other", "sesame"]).admit_one_of(presented.iter().map(String::as_str)).is_some()
    }

    #[test]
    fn a_surface_accepts_the_forms_of_its_clients_too() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for value in [
            "Bearer sesame",
            "sesame",
            &basic("me:sesame"),
            &basic("sesame:"),
            &basic("sesame:wrong"),
            &basic("sesame"),
            &basic(":sesame").replace("Basic", "basic"),
        ] {
            assert!(admits_to_surface("Authorization", value), "{value}");
        }
        assert!(admits_to_surface("api-key", "sesame"));
        for value in
            ["", "Basic", "Basic ", "Basic !", "Basic sesame", &basic("a:b"), &basic(""), &basic(":")]
        {
            assert!(!admits_to_surface("Authorization", value), "{value}");
        }
        assert!(!admits_to_surface("api-key", "") && !admits_to_surface("api-key", "sesam"));
    }
}
