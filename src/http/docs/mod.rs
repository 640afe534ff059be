//! What the server says about itself: the API reference at `/docs`, the guide at `/docs/{page}`, and the OpenAPI
//! document for programs at `/openapi.json`.
//!
//! Pages use nothing from other hosts, and relative links only, so that they work behind a path prefix.

mod guide;
mod layout;
mod markdown;
mod openapi;
mod pictures;
mod reference;

use actix_web::body::MessageBody;
use actix_web::http::header::{self, ContentType};
use actix_web::{HttpResponse, web};

use super::request::{Methods, route};

/// Every field of `input` with its schema, from the limits that the parser enforces.
pub(super) use openapi::input_fields;

/// Only our own style and script, and no other page may put ours in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(route("/docs", Methods::Get, reference::reference))
        .service(route("/docs/page.css", Methods::Get, style))
        .service(route("/docs/page.js", Methods::Get, script))
        .service(route("/docs/{page}", Methods::Get, guide::guide))
        .service(route("/docs/pictures/{name}", Methods::Get, pictures::picture))
        .service(route("/openapi.json", Methods::Get, openapi::openapi));
}

/// A page of ours, closed to whatever is not.
fn html(page: impl MessageBody + 'static) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .content_type(ContentType::html())
        .body(page)
}

async fn style() -> HttpResponse {
    asset("text/css; charset=utf-8", include_str!("page.css"))
}

async fn script() -> HttpResponse {
    asset("text/javascript; charset=utf-8", include_str!("page.js"))
}

fn asset(content_type: &str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type(content_type)
        .body(text)
}
