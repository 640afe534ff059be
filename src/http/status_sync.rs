//! `GET|POST /status-sync/{id}?wait=ms`: the job once it has ended, or as it stands by then.

use actix_web::{HttpRequest, HttpResponse, web};

use super::{Api, ApiError, JobPath, Wait, json_text};

pub async fn status_sync(
    api: web::Data<Api>,
    path: JobPath,
    wait: Wait,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = api.wait(&path.endpoint, &path.id, wait.limit).await?;
    Ok(json_text(api.status_body(&request, &job)))
}
