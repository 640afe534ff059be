//! The body of an answer, and the events of a streamed one.

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::json;

use super::ask::Ask;
use super::error::OpenAiError;
use crate::domain::{JobOutline, Timestamp};
use crate::http::request::Api;
use crate::http::surface::{Drawing, SurfaceError, files, heavy};
use crate::wire::JsonObject;

/// More than the text of an answer needs for a picture beside the file, and for everything else.
const ROOM: usize = 512;
const FRAME_END: &str = "\n\n";

/// One picture as it is answered.
struct Picture {
    file: Option<Vec<u8>>,
    url: Option<String>,
}

/// The pictures of a completed job, in one body. What the safety checker withheld is left out.
pub async fn whole(
    api: &Api,
    base: &str,
    drawing: &Drawing,
    job: JobOutline,
    ask: Ask,
) -> Result<HttpResponse, OpenAiError> {
    let mut pictures = Vec::new();
    for image in &job.images {
        let Some(url) = files::url(api, base, &job, image, ask.finish) else { continue };
        let file = match ask.form.base64 {
            true => drawing.picture(image, ask.finish).await?,
            false => None,
        };
        if file.is_some() || !ask.form.base64 {
            pictures.push(Picture { file, url: ask.form.url.then_some(url) });
        }
    }
    if pictures.is_empty() {
        return Err(SurfaceError::Withheld.into());
    }
    let created = api.queue.now().unix_seconds();
    let body = heavy(move || body(created, pictures, &job.warnings, &ask)).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// The whole body. It may have hundreds of megabytes: they are written once, and each file is freed once it is written.
fn body(created: i64, pictures: Vec<Picture>, warnings: &[String], ask: &Ask) -> String {
    let files = pictures.iter().filter_map(|picture| picture.file.as_ref());
    let length = files.map(|file| file.len().div_ceil(3) * 4).sum::<usize>();
    let mut body = JsonObject::after(String::with_capacity(length + (pictures.len() + 2) * ROOM));
    body.field("created", &created).list("data", |text| pictures.into_iter().fold(text, with_picture));
    describe(&mut body, ask);
    body.field("usage", &usage());
    warn(&mut body, warnings);
    body.finish()
}

/// The text with one more picture in its list.
fn with_picture(mut text: String, picture: Picture) -> String {
    if !text.ends_with('[') {
        text.push(',');
    }
    let mut item = JsonObject::after(text);
    if let Some(file) = picture.file {
        item.base64("b64_json", &file);
    }
    if let Some(url) = picture.url {
        item.field("url", &url);
    }
    item.finish()
}

/// What an event of a streamed answer is about.
pub enum Sent<'a> {
    Partial {
        index: u32,
    },
    Completed {
        /// With the last picture, what the client should know about all of them.
        warnings: &'a [String],
    },
}

/// One picture of a streamed answer.
pub fn event(prefix: &str, sent: &Sent<'_>, file: &[u8], now: Timestamp, ask: &Ask) -> String {
    let what = match sent {
        Sent::Partial { .. } => "partial_image",
        Sent::Completed { .. } => "completed",
    };
    let kind = format!("{prefix}.{what}");
    let mut data = JsonObject::after(frame(&kind));
    data.field("type", &kind).base64("b64_json", file);
    if let Sent::Partial { index } = sent {
        data.field("partial_image_index", index);
    }
    data.field("created_at", &now.unix_seconds());
    describe(&mut data, ask);
    if let Sent::Completed { warnings } = sent {
        data.field("usage", &usage());
        warn(&mut data, warnings);
    }
    data.finish() + FRAME_END
}

/// The event that ends a streamed answer without a picture.
pub fn error_event(error: &OpenAiError) -> String {
    format!("{}{}{FRAME_END}", frame("error"), json!({ "type": "error", "error": error.object() }))
}

/// What is before the data of an event. The data is JSON text, which has no line breaks, so it fits into one `data` field.
fn frame(kind: &str) -> String {
    format!("event: {kind}\ndata: ")
}

/// OpenAI's API has no field for this. Its clients ignore fields that they do not know.
fn warn(body: &mut JsonObject, warnings: &[String]) {
    if !warnings.is_empty() {
        body.field("warnings", &warnings);
    }
}

/// What the pictures are like.
fn describe(body: &mut JsonObject, ask: &Ask) {
    let size = ask.canvas.asked;
    body.field("size", &format!("{}x{}", size.width, size.height))
        .field("quality", &ask.quality)
        .field("background", &"opaque")
        .field("output_format", &ask.finish.format.as_str());
}

/// Nothing here is paid for by tokens, but clients add them up.
fn usage() -> serde_json::Value {
    json!({
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": { "text_tokens": 0, "image_tokens": 0 },
    })
}
