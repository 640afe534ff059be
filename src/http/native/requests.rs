//! `GET /requests?limit=&status=&cursor=`: an endpoint's jobs, newest first, a page at a time.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use crate::domain::{JobStatus, Node};
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
    let node = api.settings.node;
    let filter = filter(request.query_string(), node)?;
    let page = api.queue.list(&endpoint.id, filter).await?;
    let jobs: Vec<String> = page.jobs.iter().map(|job| api.status_body(&request, job)).collect();
    let body = JsonObject::default()
        .raw("requests", &format!("[{}]", jobs.join(",")))
        .field("cursor", &page.next.map(|place| cursor(place, node)))
        .finish();
    Ok(json_text(body))
}

/// The place of the next page in this server's list. Another server has another list, so the number of this one stands behind it.
fn cursor(place: i64, node: Option<Node>) -> String {
    node.map_or_else(|| place.to_string(), |node| format!("{place}.{node}"))
}

fn read_cursor(text: &str, node: Option<Node>) -> Result<i64, ApiError> {
    let (place, of) = match text.split_once('.') {
        Some((place, of)) => (place, Some(of)),
        None => (text, None),
    };
    let place = place.parse().ok().filter(|place| *place > 0);
    let place = place.ok_or_else(|| unmet("cursor", "It must be one that an earlier page gave."))?;
    match (of, node.map(|node| node.to_string())) {
        (Some(of), own) if own.as_deref() != Some(of) => Err(unmet(
            "cursor",
            "It is of another server's list: send it with the header X-Stablehand-Node that came with it.",
        )),
        _ => Ok(place),
    }
}

/// The filter in the query. Unknown fields are ignored.
fn filter(query: &str, node: Option<Node>) -> Result<JobFilter, ApiError> {
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
            "cursor" => filter.before = Some(read_cursor(value, node)?),
            _ => {}
        }
    }
    Ok(filter)
}

fn unmet(name: &str, constraint: &str) -> ApiError {
    ApiError::BadRequest(format!("{name} does not meet the constraints. {constraint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_leads_back_to_the_list_that_it_is_of() {
        let (two, three) = ("2".parse().ok(), "3".parse().ok());
        assert_eq!(cursor(17, None), "17");
        assert_eq!(cursor(17, two), "17.0002");
        // A server that got its number since then has the same list.
        for (text, node) in [("17", None), ("17", two), ("17.0002", two)] {
            assert_eq!(read_cursor(text, node).unwrap(), 17, "{text}");
        }
        for (text, node) in [("17.0002", three), ("17.0002", None), ("17.", two), ("17.2", two)] {
            let error = read_cursor(text, node).unwrap_err().to_string();
            assert!(error.contains("another server's list"), "{error}");
        }
        for text in ["", "0", "-1", ".0002", "seventeen"] {
            assert!(read_cursor(text, two).unwrap_err().to_string().contains("an earlier page"), "{text}");
        }
    }
}
