//! `GET /docs`: the OpenAPI document for people, as one page that asks nobody else for anything.

mod fields;
mod page;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};

use super::{Api, openapi};

/// Nothing but our own style and script, and nobody may put the page in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub async fn docs(api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    let base = api.base_url(&request);
    let endpoint = api.endpoints.keys().map(ToString::to_string).min().unwrap_or_default();
    let page = page::page(&openapi::document(&api, &request), &base, &endpoint);
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .content_type(ContentType::html())
        .body(page.into_string())
}

pub async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", include_str!("page.css"))
}

pub async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", include_str!("page.js"))
}

fn asset(content_type: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type(content_type)
        .body(text)
}
