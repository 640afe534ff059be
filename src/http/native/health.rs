//! `GET /health`: the number of jobs and workers in each state.

use actix_web::{HttpResponse, web};
use serde::Serialize;

use crate::http::request::{Api, ApiError, Endpoint};

#[derive(Serialize)]
struct Health {
    jobs: Jobs,
    workers: Workers,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Jobs {
    completed: u64,
    failed: u64,
    in_progress: u64,
    in_queue: u64,
    retried: u64,
}

#[derive(Serialize)]
struct Workers {
    idle: u32,
    initializing: u32,
    ready: u32,
    running: u32,
    throttled: u32,
}

pub async fn health(api: web::Data<Api>, endpoint: Endpoint) -> Result<HttpResponse, ApiError> {
    let jobs = api.queue.counts(&endpoint.id)?;
    let workers = api.queue.workers(&endpoint.id);
    Ok(HttpResponse::Ok().json(Health {
        jobs: Jobs {
            completed: jobs.completed,
            failed: jobs.failed,
            in_progress: jobs.in_progress,
            in_queue: jobs.in_queue,
            retried: jobs.retried,
        },
        workers: Workers {
            idle: workers.idle,
            initializing: workers.initializing,
            ready: workers.ready,
            running: workers.running,
            throttled: workers.throttled,
        },
    }))
}
