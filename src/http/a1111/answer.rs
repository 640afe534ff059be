//! The body of an answer with pictures.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ask::Ask;
use super::error::A1111Error;
use super::info;
use crate::domain::Timestamp;
use crate::http::surface::heavy;
use crate::wire::JsonObject;

/// More than an answer needs beside its pictures and their texts.
const ROOM: usize = 16 * 1024;

/// What came out of a request.
pub struct Drawn {
    pub begun_at: Timestamp,
    pub pictures: Vec<Picture>,
    pub warnings: Vec<String>,
}

/// One picture as it is answered.
pub struct Picture {
    pub file: Vec<u8>,
    pub infotext: String,
    pub seed: u64,
    pub subseed: u64,
}

impl Drawn {
    pub fn new(begun_at: Timestamp, warnings: Vec<String>) -> Self {
        Self { begun_at, pictures: Vec::new(), warnings }
    }

    /// Adds what the jobs warn of. Each says much the same.
    pub fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
    }
}

pub async fn whole(ask: Arc<Ask>, drawn: Drawn) -> Result<HttpResponse, A1111Error> {
    let body = heavy(move || body(&ask, drawn)).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// Each file is freed once it is written.
fn body(ask: &Ask, drawn: Drawn) -> String {
    let info = info::info(ask, &drawn);
    let length: usize = drawn.pictures.iter().map(|picture| picture.file.len().div_ceil(3) * 4 + 3).sum();
    let mut body = JsonObject::after(String::with_capacity(length + info.len() * 2 + ROOM));
    let pictures = if ask.sends_images { drawn.pictures } else { Vec::new() };
    body.list("images", |text| with_files(text, pictures.into_iter().map(|picture| picture.file)));
    body.field("parameters", &ask.parameters).field("info", &info);
    // A1111's API has no field for this. Its clients ignore fields that they do not know.
    if !drawn.warnings.is_empty() {
        body.field("warnings", &drawn.warnings);
    }
    body.finish()
}

/// The text with these files as items of a list, in base64 without a prefix: clients decode them as they are.
pub fn with_files(mut text: String, files: impl Iterator<Item = Vec<u8>>) -> String {
    for (index, file) in files.enumerate() {
        text.push_str(if index == 0 { "\"" } else { ",\"" });
        STANDARD.encode_string(file, &mut text);
        text.push('"');
    }
    text
}
