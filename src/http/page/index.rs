//! `GET /`: the page for browsers; for programs the server's name, version, endpoints and surfaces.

use std::sync::LazyLock;

use actix_web::http::header::{self, Accept, ContentType, Header as _};
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{DOCTYPE, Markup, html};
use serde_json::json;

use super::{CONTENT_SECURITY_POLICY, assets};
use crate::http::request::{Api, Compressed, Keyless};

static PAGE: LazyLock<Compressed> = LazyLock::new(|| Compressed::new(page().into_string()));

pub async fn index(_reader: Keyless, api: web::Data<Api>, request: HttpRequest) -> HttpResponse {
    if wants_html(&request) {
        let mut response = HttpResponse::Ok();
        response
            .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::VARY, "accept"))
            .content_type(ContentType::html());
        return PAGE.answer(&request, response);
    }
    let surfaces = api.settings.surfaces.iter().map(|surface| {
        let needs_key = !api.settings.open_surfaces.contains(surface);
        json!({ "name": surface.name(), "title": surface.title(), "path": surface.path(), "needsKey": needs_key })
    });
    HttpResponse::Ok().insert_header((header::VARY, "accept")).json(json!({
        "name": "stablehand",
        "version": env!("CARGO_PKG_VERSION"),
        "endpoints": api.endpoints.names(),
        "surfaces": surfaces.collect::<Vec<_>>(),
        "docs": "/docs",
        "openapi": "/openapi.json",
    }))
}

/// Browsers ask for HTML by name; programs accept anything.
fn wants_html(request: &HttpRequest) -> bool {
    Accept::parse(request)
        .is_ok_and(|accept| accept.iter().any(|kind| kind.item.essence_str() == "text/html"))
}

/// The document: its modules make everything in it.
fn page() -> Markup {
    let folder = format!("page/{}/", assets::version());
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1, interactive-widget=resizes-content";
                meta name="color-scheme" content="light dark";
                meta name="theme-color" media="(prefers-color-scheme: light)" content="#faf9f7";
                meta name="theme-color" media="(prefers-color-scheme: dark)" content="#161514";
                title { "stablehand" }
                link rel="icon" type="image/svg+xml" href={ (folder) "icon.svg" };
                @for style in assets::names(".css") { link rel="stylesheet" href={ (folder) (style) }; }
                // All at once, not one import after the other.
                @for module in assets::names(".js") { link rel="modulepreload" href={ (folder) (module) }; }
                script type="module" src={ (folder) "main.js" } {}
            }
            body {
                noscript { "This page needs JavaScript. " a href="docs" { "The documentation" } " does not." }
            }
        }
    }
}
