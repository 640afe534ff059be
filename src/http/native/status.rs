//! `GET|POST /status/{id}`: the job as it is now.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use crate::http::request::{Api, ApiError, JobPath};

pub async fn status(
    api: web::Data<Api>,
    path: JobPath,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = api.find(&path.endpoint, &path.id).await?;
    Ok(json_text(api.status_body(&request, &job)))
}
