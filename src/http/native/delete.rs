//! `POST /delete/{id}`: deletes a job that has ended, with its pictures.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::request::{Api, ApiError, JobPath};

pub async fn delete(api: web::Data<Api>, path: JobPath) -> Result<HttpResponse, ApiError> {
    let job = api.queue.outline(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
    if !job.status.is_final() {
        return Err(ApiError::BadRequest(format!(
            "Only a job that has ended can be deleted; this one is {}: cancel it first.",
            job.status
        )));
    }
    api.queue.forget(&path.endpoint, &path.id).await?;
    Ok(HttpResponse::Ok().json(json!({ "id": path.id, "status": "deleted" })))
}
