//! `GET /metrics`: measurements in the format of Prometheus.

use actix_web::{FromRequest, HttpRequest, HttpResponse, web};

use super::request::{Api, ApiError, ApiKey, MetricsAccess};

pub async fn metrics(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    if api.settings.metrics == MetricsAccess::Key {
        ApiKey::extract(&request).await?;
    }
    let (load, workers) = api.queue.load().await?;
    let page = api.metrics.page(&load, &workers);
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(page))
}
