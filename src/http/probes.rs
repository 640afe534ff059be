//! `GET /live` and `GET /ready`: for load balancers and whatever restarts the server. They say yes or no and nothing else,
//! so they need no key.

use std::time::Duration;

use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::request::{Api, ApiError, Methods, route};

/// Where they are. The hosted service's clients know only addresses below `/v1` and `/v2`.
pub(super) const PATHS: [&str; 6] = ["/live", "/ready", "/v1/live", "/v1/ready", "/v2/live", "/v2/ready"];
/// After how many seconds it is worth asking again.
const RETRY_AFTER_S: u64 = 5;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    for path in PATHS {
        config.service(match path.ends_with("live") {
            true => route(path, Methods::Get, live),
            false => route(path, Methods::Get, ready),
        });
    }
}

/// Whether the server works. If not, it helps to restart it.
async fn live(api: web::Data<Api>) -> HttpResponse {
    answer(api.queue.makes_progress())
}

/// Whether a job that is submitted now begins within `max_wait`; without it, whether it begins at all.
async fn ready(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let max_wait = max_wait(request.query_string())?;
    if api.is_stopping() {
        return Ok(answer(false));
    }
    let endpoints: Vec<_> = api.endpoints.iter().map(|endpoint| &endpoint.id).collect();
    let wait = api.queue.expected_wait(&endpoints).await?;
    Ok(answer(wait.is_some_and(|wait| max_wait.is_none_or(|max_wait| wait <= max_wait))))
}

fn answer(ok: bool) -> HttpResponse {
    match ok {
        true => HttpResponse::Ok().json(json!({ "ok": true })),
        false => HttpResponse::ServiceUnavailable()
            .insert_header((RETRY_AFTER, RETRY_AFTER_S))
            .json(json!({ "ok": false })),
    }
}

/// `max_wait` of a query: seconds, or a time such as `2m 30s`.
fn max_wait(query: &str) -> Result<Option<Duration>, ApiError> {
    let fields = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| ApiError::BadRequest("The query is not well-formed.".to_owned()))?;
    let Some((_, text)) = fields.iter().rfind(|(name, _)| name == "max_wait") else { return Ok(None) };
    let seconds = text.parse().ok().map(Duration::from_secs);
    let time = seconds.or_else(|| humantime::parse_duration(text).ok());
    time.map(Some).ok_or_else(|| {
        ApiError::BadRequest("max_wait should be a time, such as max_wait=30s or max_wait=2m.".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_a_time_or_a_number_of_seconds() {
        let seconds = |query: &str| max_wait(query).unwrap().map(|wait| wait.as_secs());
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("other=1"), None);
        assert_eq!(seconds("max_wait=30s"), Some(30));
        assert_eq!(seconds("max_wait=45"), Some(45));
        assert_eq!(seconds("max_wait=2m%2030s"), Some(150));
        assert_eq!(seconds("max_wait=0"), Some(0));
        for query in ["max_wait", "max_wait=", "max_wait=soon", "max_wait=-1", "max_wait=1.5"] {
            assert!(max_wait(query).is_err(), "{query}");
        }
    }
}
