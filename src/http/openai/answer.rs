//! The body of an answer, and the events of a streamed one.

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::json;

use super::ask::Ask;
use super::error::OpenAiError;
use crate::domain::{JobOutline, Timestamp};
use crate::http::request::Api;
use crate::http::surface::{Drawing, base64_json, files};
use crate::wire::JsonObject;

/// The pictures of a completed job, in one body. What the safety checker withheld is left out.
pub async fn whole(
    api: &Api,
    base: &str,
    drawing: &Drawing,
    job: &JobOutline,
    ask: &Ask,
) -> Result<HttpResponse, OpenAiError> {
    let mut data = Vec::new();
    for image in &job.images {
        let Some(url) = files::url(api, base, job, image, ask.finish) else { continue };
        let mut item = JsonObject::default();
        if ask.form.base64 {
            let Some(file) = drawing.picture(image, ask.finish).await? else { continue };
            item.raw("b64_json", &base64_json(&file));
        }
        if ask.form.url {
            item.field("url", &url);
        }
        data.push(item.finish());
    }
    if data.is_empty() {
        return Err(OpenAiError::Blocked);
    }
    let mut body = JsonObject::default();
    body.field("created", &api.queue.now().unix_seconds()).raw("data", &format!("[{}]", data.join(",")));
    describe(&mut body, ask);
    body.field("usage", &usage());
    warn(&mut body, &job.warnings);
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body.finish()))
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
    let mut data = JsonObject::default();
    data.field("type", &kind).raw("b64_json", &base64_json(file));
    if let Sent::Partial { index } = sent {
        data.field("partial_image_index", index);
    }
    data.field("created_at", &now.unix_seconds());
    describe(&mut data, ask);
    if let Sent::Completed { warnings } = sent {
        data.field("usage", &usage());
        warn(&mut data, warnings);
    }
    framed(&kind, &data.finish())
}

/// The event that ends a streamed answer without a picture.
pub fn error_event(error: &OpenAiError) -> String {
    framed("error", &json!({ "type": "error", "error": error.object() }).to_string())
}

/// JSON text has no line breaks, so it fits into one `data` field.
fn framed(kind: &str, data: &str) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
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
