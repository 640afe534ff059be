//! `POST|GET /cancel/{id}`: end a job early. One that has ended keeps its state, and shows it.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{Api, ApiError, JobPath};

pub async fn cancel(api: web::Data<Api>, path: JobPath) -> Result<HttpResponse, ApiError> {
    let status = api.queue.cancel(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
    Ok(HttpResponse::Ok().json(json!({ "id": path.id, "status": status })))
}
