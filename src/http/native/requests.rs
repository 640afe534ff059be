//! `GET /requests?limit=&status=&cursor=`: an endpoint's jobs, newest first, a page at a time.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use crate::domain::JobStatus;
use crate::http::request::{Api, ApiError, Endpoint};
use crate::queue::JobFilter;
use crate::wire::JsonObject;

pub const DEFAULT_LIMIT: u32 = 20;
pub const MAX_LIMIT: u32 = 100;

pub async fn requests(
    api: web::Data<Api>,
    endpoint: Endpoint,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let filter = filter(request.query_string())?;
    let page = api.queue.list(&endpoint.id, filter).await?;
    let jobs: Vec<String> = page.jobs.iter().map(|job| api.status_body(&request, job)).collect();
    let body = JsonObject::default()
        .raw("requests", &format!("[{}]", jobs.join(",")))
        .field("cursor", &page.next.map(|place| place.to_string()))
        .finish();
    Ok(json_text(body))
}

/// The filter in the query. Unknown fields are ignored.
fn filter(query: &str) -> Result<JobFilter, ApiError> {
    let fields = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| ApiError::BadRequest("The query is not well-formed.".to_owned()))?;
    let mut filter = JobFilter { status: None, before: None, limit: DEFAULT_LIMIT };
    for (name, value) in fields.iter() {
        match name.as_str() {
            "limit" => {
                filter.limit =
                    value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
                        unmet("limit", &format!("It must be a whole number from 1 to {MAX_LIMIT}."))
                    })?;
            }
            "status" => {
                let known = || JobStatus::ALL.map(JobStatus::as_str).join(", ");
                let status = JobStatus::parse(value);
                filter.status =
                    Some(status.ok_or_else(|| unmet("status", &format!("It must be one of {}.", known())))?);
            }
            "cursor" => {
                let place = value.parse().ok().filter(|place| *place > 0);
                let place = place.ok_or_else(|| unmet("cursor", "It must be one that an earlier page gave."));
                filter.before = Some(place?);
            }
            _ => {}
        }
    }
    Ok(filter)
}

fn unmet(name: &str, constraint: &str) -> ApiError {
    ApiError::BadRequest(format!("{name} does not meet the constraints. {constraint}"))
}
