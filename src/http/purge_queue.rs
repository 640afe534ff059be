//! `POST /purge-queue`: drop what waits. What runs goes on.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{Api, ApiError, Endpoint};

pub async fn purge_queue(api: web::Data<Api>, endpoint: Endpoint) -> Result<HttpResponse, ApiError> {
    let removed = api.queue.purge(&endpoint.id).await?;
    Ok(HttpResponse::Ok().json(json!({ "removed": removed, "status": "completed" })))
}
