//! `GET /`: which server this is, and where its documentation lives.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::Api;

pub async fn index(api: web::Data<Api>) -> HttpResponse {
    let mut endpoints: Vec<&str> = api.endpoints.keys().map(crate::domain::EndpointId::as_str).collect();
    endpoints.sort_unstable();
    HttpResponse::Ok().json(json!({
        "name": "stablehand",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints,
        "docs": "README.md, or `stablehand serve --help`",
    }))
}
