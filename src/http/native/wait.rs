//! The `?wait=` of runsync and status-sync.

use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use crate::http::request::ApiError;

pub const DEFAULT_MS: f64 = 90_000.0;
pub const MIN_MS: f64 = 1_000.0;
pub const MAX_MS: f64 = 300_000.0;

/// How long a client wants to wait, within the contract's limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    pub limit: Duration,
    /// Whether the client sent `wait`; its results are then kept longer.
    pub asked: bool,
}

impl Wait {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let fields = web::Query::<Vec<(String, String)>>::from_query(query)
            .map_err(|_| ApiError::BadRequest("The query is not well-formed.".to_owned()))?;
        let asked = fields.iter().rfind(|(name, _)| name == "wait").map(|(_, value)| value);
        let wanted_ms = match asked {
            None => DEFAULT_MS,
            Some(text) => text.parse::<f64>().ok().filter(|ms| ms.is_finite()).ok_or_else(|| {
                ApiError::BadRequest(
                    "wait should be a number of milliseconds, such as wait=90000.".to_owned(),
                )
            })?,
        };
        let limit = Duration::from_secs_f64(wanted_ms.clamp(MIN_MS, MAX_MS) / 1000.0);
        Ok(Self { limit, asked: asked.is_some() })
    }
}

impl FromRequest for Wait {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::parse(request.query_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_out_of_range_is_clamped() {
        let ms = |query: &str| Wait::parse(query).unwrap().limit.as_millis();
        assert_eq!(ms(""), 90_000);
        assert_eq!(ms("other=1"), 90_000);
        assert_eq!(ms("wait=2500"), 2_500);
        assert_eq!((ms("wait=0"), ms("wait=-5"), ms("wait=99999999999999999999")), (1_000, 1_000, 300_000));
        assert!(!Wait::parse("").unwrap().asked && Wait::parse("wait=1").unwrap().asked);
    }

    #[test]
    fn a_wait_that_is_no_number_is_refused() {
        for query in ["wait=", "wait=soon", "wait=1s", "wait=NaN", "wait=inf", "wait"] {
            assert!(Wait::parse(query).is_err(), "{query}");
        }
    }
}
