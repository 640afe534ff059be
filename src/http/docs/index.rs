//! `GET /`: the server's name, version and endpoints. Browsers are redirected to the documentation.

use actix_web::http::header::{self, Accept, Header as _};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use crate::http::request::Api;

pub async fn index(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    if wants_html(&request) {
        // Relative, so that it works behind a path prefix.
        return HttpResponse::SeeOther().insert_header((header::LOCATION, "docs")).finish();
    }
    HttpResponse::Ok().json(json!({
        "name": "stablehand",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": api.endpoints.names(),
        "docs": "/docs",
        "openapi": "/openapi.json",
    }))
}

/// Browsers ask for HTML by name; programs accept anything.
fn wants_html(request: &HttpRequest) -> bool {
    Accept::parse(request)
        .is_ok_and(|accept| accept.iter().any(|kind| kind.item.essence_str() == "text/html"))
}
