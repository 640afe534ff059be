//! `GET /page/{version}/{name}`: the files of the page, compressed once.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::http::request::{ApiError, Compressed, Keyless};

struct Asset {
    name: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($name:literal),* $(,)?) => {
        [$(Asset { name: $name, text: include_str!(concat!("assets/", $name)) }),*]
    };
}

static ASSETS: &[Asset] = &assets![
    "api.js",
    "bytes.js",
    "completions.js",
    "count_field.js",
    "door.js",
    "draw_panel.js",
    "drops.js",
    "element.js",
    "field.js",
    "form.js",
    "gallery.js",
    "icon.svg",
    "icons.js",
    "infotext.js",
    "jobs.js",
    "jobs_view.js",
    "json.js",
    "keyring.js",
    "library_view.js",
    "lora_list.js",
    "main.js",
    "mask_canvas.js",
    "metrics.js",
    "object_field.js",
    "outpaint_frame.js",
    "painting.js",
    "picture_file.js",
    "png_texts.js",
    "prompt_field.js",
    "request_text.js",
    "save_file.js",
    "seed_field.js",
    "server_events.js",
    "server_view.js",
    "size_field.js",
    "slider.js",
    "stage.js",
    "start_picture.js",
    "style.css",
    "sure_button.js",
    "toast.js",
    "viewer.js",
    "words.js",
    "zip.js",
];

/// In the order of [`ASSETS`].
static COMPRESSED: LazyLock<Vec<Compressed>> =
    LazyLock::new(|| ASSETS.iter().map(|asset| Compressed::new(asset.text)).collect());

/// The hash of all files.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut hash = Sha256::new();
    for Asset { name, text } in ASSETS {
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    URL_SAFE_NO_PAD.encode(&hash.finalize()[..12])
});

pub(super) fn version() -> &'static str {
    &VERSION
}

/// The files whose names end so.
pub(super) fn names(ending: &str) -> impl Iterator<Item = &'static str> {
    ASSETS.iter().map(|asset| asset.name).filter(move |name| name.ends_with(ending))
}

pub(super) async fn asset(
    _reader: Keyless,
    path: web::Path<(String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let (version, name) = path.into_inner();
    let index = ASSETS.iter().position(|asset| asset.name == name).ok_or(ApiError::NO_ROUTE)?;
    let tag = format!("\"{}\"", self::version());
    let is_current = version == self::version();
    let mut response = HttpResponse::Ok();
    response.insert_header((header::ETAG, tag.clone()));
    // A page of an older server may still ask for its own version.
    response.insert_header((
        header::CACHE_CONTROL,
        if is_current { "public, max-age=31536000, immutable" } else { "no-cache" },
    ));
    let known = request.headers().get(header::IF_NONE_MATCH);
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        response.insert_header((header::VARY, "accept-encoding"));
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    response.content_type(content_type(&name));
    Ok(COMPRESSED[index].answer(&request, response))
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    }
}
