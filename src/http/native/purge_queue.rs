//! `POST /purge-queue`: removes the waiting jobs. Running jobs continue.

use actix_web::{HttpResponse, web};
use serde_json::json;

use crate::http::request::{Api, ApiError, Endpoint};

pub async fn purge_queue(api: web::Data<Api>, endpoint: Endpoint) -> Result<HttpResponse, ApiError> {
    let removed = api.queue.purge(&endpoint.id).await?;
    Ok(HttpResponse::Ok().json(json!({ "removed": removed, "status": "completed" })))
}
