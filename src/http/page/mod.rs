//! The page to draw on, at `/`: HTML, CSS and ES modules as they lie in `assets/`, without a build step.
//!
//! The page is a client of the public API like any other. Nothing in it comes from elsewhere, and all links are relative,
//! so that it works behind a path prefix. Its assets lie under a path that names their hash: browsers keep them for good,
//! and never mix two versions.

mod assets;
mod index;

use actix_web::web;

use super::request::{Methods, route};

/// Only our own files, and no other page may put ours in a frame. Pictures that are dropped on the page are blobs.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(route("/", Methods::Get, index::index)).service(route(
        "/page/{version}/{name}",
        Methods::Get,
        assets::asset,
    ));
}
