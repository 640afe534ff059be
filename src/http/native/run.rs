//! `POST /run`: queues a job and answers its id at once.

use actix_web::{HttpRequest, HttpResponse, web};

use super::submission;
use crate::domain::{JobKind, NewJob};
use crate::http::request::body::{self, Body};
use crate::http::request::{Api, ApiError, Endpoint, idempotency};
use crate::wire::JsonObject;

pub async fn run(
    api: web::Data<Api>,
    endpoint: Endpoint,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let Body { bytes, held: _held } = body::read(&request, payload, body::RUN_LIMIT).await?;
    let once = idempotency::from_request(&request, &endpoint, &bytes)?;
    let job = submission::read(bytes, endpoint.id, endpoint.rules, JobKind::Run).await?;
    let submitted = api.submit(NewJob { once, ..job }, super::NAME).await?;
    let mut body = JsonObject::default();
    Ok(super::json_text(body.field("id", &submitted.id).field("status", &submitted.status).finish()))
}
