//! `GET /health`: the number of jobs and workers in each state.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::request::{Api, ApiError, Endpoint};

pub async fn health(api: web::Data<Api>, endpoint: Endpoint) -> Result<HttpResponse, ApiError> {
    let jobs = api.queue.counts(&endpoint.id).await?;
    let workers = api.queue.workers(&endpoint.id);
    Ok(HttpResponse::Ok().json(json!({
        "jobs": {
            "completed": jobs.completed,
            "failed": jobs.failed,
            "inProgress": jobs.in_progress,
            "inQueue": jobs.in_queue,
            "retried": jobs.retried,
        },
        "workers": {
            "idle": workers.idle,
            "initializing": workers.initializing,
            "ready": workers.ready,
            "running": workers.running,
            "throttled": workers.throttled,
        },
    })))
}
