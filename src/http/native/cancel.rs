//! `POST|GET /cancel/{id}`: ends a job early. A job that has already ended keeps its state, which is the answer.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::request::{Api, ApiError, JobPath};

pub async fn cancel(api: web::Data<Api>, path: JobPath) -> Result<HttpResponse, ApiError> {
    let status = api.queue.cancel(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
    Ok(HttpResponse::Ok().json(json!({ "id": path.id, "status": status })))
}
