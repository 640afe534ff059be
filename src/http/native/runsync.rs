//! `POST /runsync?wait=ms`: queues a job and answers when it has ended, or after `wait`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::wait::Wait;
use super::{json_text, submission};
use crate::domain::{JobKind, NewJob};
use crate::http::request::body::{self, Body};
use crate::http::request::{Api, ApiError, Endpoint, idempotency};

pub async fn runsync(
    api: web::Data<Api>,
    endpoint: Endpoint,
    wait: Wait,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let Body { bytes, held } = body::read(&request, payload, body::RUNSYNC_LIMIT).await?;
    let once = idempotency::from_request(&request, &endpoint, &bytes)?;
    let kind = JobKind::RunSync { waited: wait.asked };
    let job = submission::read(bytes, endpoint.id.clone(), endpoint.rules, kind).await?;
    let submitted = api.submit(NewJob { once, ..job }, super::NAME).await?;
    drop(held);
    let job = api.wait(&endpoint.id, &submitted.id, wait.limit).await?;
    Ok(json_text(api.status_body(&request, &job)))
}
