//! `POST /runsync?wait=ms`: take a job in and answer once it has ended, or as it stands by then.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Api, ApiError, Endpoint, Wait, body, idempotency, json_text, submission};
use crate::domain::{JobKind, NewJob};

pub async fn runsync(
    api: web::Data<Api>,
    endpoint: Endpoint,
    wait: Wait,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let body = body::read(&request, payload, body::RUNSYNC_LIMIT).await?;
    let once = idempotency::of(&request, &endpoint, &body)?;
    let kind = JobKind::RunSync { waited: wait.asked };
    let job = submission::read(body, endpoint.id.clone(), endpoint.rules, kind).await?;
    let submitted = api.queue.submit(NewJob { once, ..job }).await?;
    let job = api.wait(&endpoint.id, &submitted.id, wait.limit).await?;
    Ok(json_text(api.status_body(&request, &job)))
}
