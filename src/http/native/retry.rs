//! `POST /retry/{id}`: queues a job again that failed or timed out.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::domain::JobStatus;
use crate::http::request::{Api, ApiError, JobPath};
use crate::queue::NoRetry;

pub async fn retry(api: web::Data<Api>, path: JobPath) -> Result<HttpResponse, ApiError> {
    api.queue.retry(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?.map_err(|refusal| {
        ApiError::BadRequest(match refusal {
            NoRetry::Status(status) => {
                format!("Only a job that is FAILED or TIMED_OUT can be retried; this one is {status}.")
            }
            NoRetry::NoBucket => {
                "This job's s3Config was deleted when the job ended: submit the job again.".to_owned()
            }
        })
    })?;
    Ok(HttpResponse::Ok().json(json!({ "id": path.id, "status": JobStatus::InQueue })))
}
