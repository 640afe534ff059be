//! `GET /docs/pictures/{name}`: the pictures of the guide, from the folder `docs/pictures/`.

use actix_web::http::header;
use actix_web::{HttpResponse, web};

use crate::http::request::{ApiError, Keyless};

struct Picture {
    name: &'static str,
    png: &'static [u8],
}

macro_rules! pictures {
    ($($name:literal),* $(,)?) => {
        &[$(Picture { name: $name, png: include_bytes!(concat!("../../../docs/pictures/", $name)) }),*]
    };
}

/// All pictures that the pages show. A page shows one by `![what it shows](pictures/NAME.png)`.
const PICTURES: &[Picture] = pictures![
    "a1111.png",
    "samplers.png",
    "controlnet.png",
    "edges.png",
    "prompts.png",
    "inpainting.png",
    "variations.png",
    "hires.png",
    "page.png"
];

pub(super) async fn picture(_reader: Keyless, name: web::Path<String>) -> Result<HttpResponse, ApiError> {
    let picture = PICTURES.iter().find(|picture| picture.name == name.as_str()).ok_or(ApiError::NO_ROUTE)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .content_type("image/png")
        .body(picture.png))
}
