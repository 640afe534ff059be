//! Hugging Face's inference API for pictures, as `huggingface_hub` and `@huggingface/inference` call it when they are given a
//! URL: text-to-image and image-to-image. The answer is the bytes of one picture.
//!
//! `ask` reads the request, `draw` answers it, `error` says what did not work.

mod ask;
mod draw;
mod error;

use actix_web::web;

use self::error::HuggingFaceError;
use super::request::{Methods, Operation, Surface};
use super::surface::{Dialect, route};

/// The surface as a type.
pub struct HuggingFace;

impl Dialect for HuggingFace {
    const SURFACE: Surface = Surface::HuggingFace;
    type Error = HuggingFaceError;
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    // Clients post to the URL that they are given, and the OpenAPI document describes paths below `/v2`.
    for path in
        ["", "/{model:.+}"].into_iter().flat_map(|path| ["", "/v1", "/v2"].map(|prefix| (prefix, path)))
    {
        let path = format!("{}{}{}", path.0, Surface::HuggingFace.path(), path.1);
        config.service(route::<HuggingFace, _, _>(path, Methods::Post, Operation::RunSync, draw::draw));
    }
}
