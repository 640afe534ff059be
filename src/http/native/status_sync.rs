//! `GET|POST /status-sync/{id}?wait=ms`: the job when it has ended, or after `wait`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use super::wait::Wait;
use crate::http::request::{Api, ApiError, JobPath};

pub async fn status_sync(
    api: web::Data<Api>,
    path: JobPath,
    wait: Wait,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = api.wait(&path.endpoint, &path.id, wait.limit).await?;
    Ok(json_text(api.status_body(&request, &job)))
}
