//! `GET /events/{id}`: a job's life as Server-Sent Events, for browsers; `POST /events/{id}/url`: where to read them
//! without a key, for `EventSource` cannot send one.
//!
//! Each listener sees the whole of it, whoever else listens, and drains nothing. A job's end is the event `end`, after
//! which the connection closes; a browser that connects again nevertheless, saying that it has seen the end, is told
//! by 204 to stop. A server that stops closes without an end, and the browser comes back.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use futures_util::future::{Either, select};
use futures_util::stream;
use serde_json::json;

use super::signed_query::SignedQuery;
use super::{Api, ApiError, Endpoint, JobPath, Turn};
use crate::domain::{JobId, JobOutline};
use crate::queue::{Follower, News};
use crate::wire::{ImageUrls, Opens, end_of, picture_of, state_of, step_of};

/// Between two signs of life: less than the patience of any proxy.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a URL without a key lets new listeners in.
const URL_LIVES: Duration = Duration::from_mins(10);
/// How soon a browser connects again.
const RETRY: &str = "retry: 2000\n\n";
/// The id of the last event.
const END: &str = "end";

/// `POST /events/{id}/url`, with a key.
pub async fn url(api: web::Data<Api>, path: JobPath, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let job = api.queue.outline(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
    let expires = (api.queue.now() + URL_LIVES).min(job.expires_at).unix_seconds();
    let base = api.base_url(&request);
    let url = ImageUrls { base: &base, signer: &api.signer }.events(&path.endpoint, &path.id, expires);
    Ok(HttpResponse::Ok().json(json!({ "url": url, "expires": expires })))
}

/// `GET /events/{id}`, with a key or a signature.
pub async fn events(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = admitted(&api, &request)?;
    let mut follower = api.queue.follow(&path.endpoint, &path.id);
    // A job that is not there is a plain 404.
    let first = match follower.next().await? {
        Some(News::Gone) => return Err(ApiError::NO_JOB),
        first => first,
    };
    let last_seen = request.headers().get("last-event-id");
    let is_over = matches!(&first, Some(News::State(job)) if job.status.is_final());
    if is_over && last_seen.is_some_and(|id| id.as_bytes() == END.as_bytes()) {
        return Ok(HttpResponse::NoContent().finish());
    }
    let base = api.base_url(&request);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Proxies and our own compression would hold events back to fill a buffer.
        .insert_header(("x-accel-buffering", "no"))
        .insert_header(ContentEncoding::Identity)
        .streaming(stream::unfold(
            Telling { api, follower, base, _turn: path.turn, first, is_begun: false, is_over: false },
            tell,
        )))
}

/// The job of the path, open to this caller: by a signature, where there is one, or by a key.
fn admitted(api: &Api, request: &HttpRequest) -> Result<JobPath, ApiError> {
    let Some(signed) = SignedQuery::find(request)? else {
        return JobPath::from_request(request, &mut Payload::None).into_inner();
    };
    let endpoint = Endpoint::of(request)?.id;
    let id = request.match_info().get("id").and_then(JobId::parse).ok_or(ApiError::BadSignature)?;
    if !api.signer.verifies(Opens::Events, &endpoint, &id, signed.expires, &signed.signature) {
        return Err(ApiError::BadSignature);
    }
    if signed.expires <= api.queue.now().unix_seconds() {
        return Err(ApiError::Expired);
    }
    Ok(JobPath { endpoint, id, turn: Turn::default() })
}

/// One listener's connection.
struct Telling {
    api: web::Data<Api>,
    follower: Follower,
    base: String,
    /// Counts as under way for as long as somebody listens.
    _turn: Turn,
    /// What was heard before the answer began.
    first: Option<News>,
    is_begun: bool,
    is_over: bool,
}

async fn tell(mut telling: Telling) -> Option<(Result<Bytes, ApiError>, Telling)> {
    if telling.is_over {
        return None;
    }
    let mut text = String::new();
    if !telling.is_begun {
        telling.is_begun = true;
        text.push_str(RETRY);
    }
    match telling.news().await {
        Ok(Some(News::State(job))) if job.status.is_final() => {
            telling.is_over = true;
            let urls = ImageUrls { base: &telling.base, signer: &telling.api.signer };
            push_end(&mut text, &job, &urls);
        }
        Ok(Some(News::State(job))) => push(&mut text, "status", &state_of(&job)),
        Ok(Some(News::Step(frame))) => push(&mut text, "progress", &step_of(&frame)),
        Ok(Some(News::Gone)) => {
            telling.is_over = true;
            push(&mut text, "end", &json!({ "error": ApiError::NO_JOB.to_string() }).to_string());
        }
        // Without an end where the server stops: the browser connects again.
        Ok(None) | Err(Silence::Stopped) => return None,
        Err(Silence::Failed(error)) => {
            telling.is_over = true;
            return Some((Err(error), telling));
        }
        Err(Silence::Long) => text.push_str(": still here\n\n"),
    }
    Some((Ok(Bytes::from(text)), telling))
}

/// Why there is no news.
enum Silence {
    Long,
    Stopped,
    Failed(ApiError),
}

impl Telling {
    async fn news(&mut self) -> Result<Option<News>, Silence> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let mut stopping = self.api.stopping.clone();
        let stopped = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
        let news = std::pin::pin!(actix_web::rt::time::timeout(HEARTBEAT, self.follower.next()));
        match select(stopped, news).await {
            Either::Left(_) => Err(Silence::Stopped),
            Either::Right((Err(_), _)) => Err(Silence::Long),
            Either::Right((Ok(news), _)) => news.map_err(|error| Silence::Failed(error.into())),
        }
    }
}

fn push_end(text: &mut String, job: &JobOutline, urls: &ImageUrls<'_>) {
    for image in &job.images {
        push(text, "image", &picture_of(job, image, urls));
    }
    text.push_str("id: ");
    text.push_str(END);
    text.push('\n');
    push(text, "end", &end_of(job));
}

/// JSON text is one line, so it is one `data` field.
fn push(text: &mut String, event: &str, data: &str) {
    for part in ["event: ", event, "\ndata: ", data, "\n\n"] {
        text.push_str(part);
    }
}
