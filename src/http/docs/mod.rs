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
mod rendered;

use std::sync::LazyLock;

use actix_web::http::header::{self, ContentType};
use actix_web::{HttpRequest, HttpResponse, web};

use super::request::{Compressed, Keyless, Methods, route};
use rendered::Rendered;

/// Every field of `input` with its schema, from the limits that the parser enforces.
pub(super) use openapi::input_fields;

/// Only our own style and script, and no other page may put ours in a frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is made of the configuration. All threads of the server share it.
#[derive(Default)]
pub(super) struct State {
    reference: Rendered,
    openapi: Rendered,
}

pub(super) fn routes(config: &mut web::ServiceConfig, state: &web::Data<State>) {
    config
        .app_data(state.clone())
        .service(route("/docs", Methods::Get, reference::reference))
        .service(route("/docs/page.css", Methods::Get, style))
        .service(route("/docs/page.js", Methods::Get, script))
        .service(route("/docs/{page}", Methods::Get, guide::guide))
        .service(route("/docs/pictures/{name}", Methods::Get, pictures::picture))
        .service(route("/openapi.json", Methods::Get, openapi::openapi));
}

/// A page of ours, closed to whatever is not.
fn html(request: &HttpRequest, page: &Compressed) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .content_type(ContentType::html());
    page.answer(request, response)
}

static STYLE: LazyLock<Compressed> = LazyLock::new(|| Compressed::new(include_str!("page.css")));
static SCRIPT: LazyLock<Compressed> = LazyLock::new(|| Compressed::new(include_str!("page.js")));

async fn style(_reader: Keyless, request: HttpRequest) -> HttpResponse {
    asset(&request, "text/css; charset=utf-8", &STYLE)
}

async fn script(_reader: Keyless, request: HttpRequest) -> HttpResponse {
    asset(&request, "text/javascript; charset=utf-8", &SCRIPT)
}

fn asset(request: &HttpRequest, content_type: &str, text: &Compressed) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CACHE_CONTROL, "no-cache")).content_type(content_type);
    text.answer(request, response)
}
