//! `GET /events/{id}`: a job's progress as Server-Sent Events. `POST /events/{id}/url`: a signed URL for the same,
//! because a browser's `EventSource` cannot send a key.
//!
//! Every listener gets every event from the moment it connects; listening removes nothing. The event `end` comes last,
//! then the connection closes. A browser may reconnect after the end: it sends the id of the last event, and the
//! answer is 204, which makes it stop. A server that stops closes without `end`, so browsers reconnect.

use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::header::{self, ContentEncoding};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest, HttpResponse, web};
use futures_util::future::{Either, select};
use futures_util::stream;
use serde_json::json;

use crate::domain::{JobId, JobOutline};
use crate::http::request::{Api, ApiError, ApiKey, Endpoint, InFlight, JobPath, SignedQuery, enter};
use crate::queue::{Follower, News};
use crate::wire::{JobEvent, JobUrls, SignedResource, end_json, image_json, progress_json, status_json};

/// The time between two comments that keep an idle connection open; shorter than any proxy's timeout.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a signed URL accepts new listeners.
const URL_LIFETIME: Duration = Duration::from_mins(10);
/// How soon a browser reconnects.
const RETRY: &str = "retry: 2000\n\n";
/// The id of the last event.
const LAST_EVENT_ID: &str = "end";

/// `POST /events/{id}/url`, with a key.
pub async fn url(api: web::Data<Api>, path: JobPath, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let job = api.queue.outline(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
    let expires = (api.queue.now() + URL_LIFETIME).min(job.expires_at).unix_seconds();
    let base = api.base_url(&request);
    let url = JobUrls { base: &base, signer: &api.signer }.events(&path.endpoint, &path.id, expires);
    Ok(HttpResponse::Ok().json(json!({ "url": url, "expires": expires })))
}

/// `GET /events/{id}`, with a key or a signature.
pub async fn events(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let path = authorized_path(&api, &request)?;
    let mut follower = api.queue.follow(&path.endpoint, &path.id);
    // A missing job is a plain 404.
    let first = match follower.next().await? {
        Some(News::Gone) => return Err(ApiError::NO_JOB),
        first => first,
    };
    if has_ended(first.as_ref()) && has_seen_the_end(&request) {
        return Ok(HttpResponse::NoContent().finish());
    }
    let base = api.base_url(&request);
    let connection = Connection {
        api,
        follower,
        base,
        _in_flight: path.in_flight,
        first,
        has_begun: false,
        is_over: false,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Proxies and our own compression would hold events back to fill a buffer.
        .insert_header(("x-accel-buffering", "no"))
        .insert_header(ContentEncoding::Identity)
        .streaming(stream::unfold(connection, next_chunk)))
}

/// The job of the path, if the request has a signature for it or a key.
fn authorized_path(api: &Api, request: &HttpRequest) -> Result<JobPath, ApiError> {
    let Some(signed) = SignedQuery::find(request)? else {
        return JobPath::from_request(request, &mut Payload::None).into_inner();
    };
    let endpoint = Endpoint::from_path(request)?.id;
    let id = request.match_info().get("id").and_then(JobId::parse).ok_or(ApiError::BadSignature)?;
    if !api.signer.verifies(SignedResource::Events, &endpoint, &id, signed.expires, &signed.signature) {
        return Err(ApiError::BadSignature);
    }
    if signed.expires <= api.queue.now().unix_seconds() {
        return Err(ApiError::Expired);
    }
    // Whoever has the URL may open it again and again.
    Ok(JobPath { endpoint, id, in_flight: enter(&ApiKey(None), request)? })
}

fn has_ended(first: Option<&News>) -> bool {
    matches!(first, Some(News::State(job)) if job.status.is_final())
}

fn has_seen_the_end(request: &HttpRequest) -> bool {
    request.headers().get("last-event-id").is_some_and(|id| id.as_bytes() == LAST_EVENT_ID.as_bytes())
}

/// One listener's connection.
struct Connection {
    api: web::Data<Api>,
    follower: Follower,
    base: String,
    /// Counts as in flight while the listener is connected.
    _in_flight: InFlight,
    /// What the handler read before the answer began.
    first: Option<News>,
    has_begun: bool,
    is_over: bool,
}

async fn next_chunk(mut connection: Connection) -> Option<(Result<Bytes, ApiError>, Connection)> {
    if connection.is_over {
        return None;
    }
    let mut text = String::new();
    if !connection.has_begun {
        connection.has_begun = true;
        text.push_str(RETRY);
    }
    match connection.news().await {
        Ok(Some(News::State(job))) if job.status.is_final() => {
            connection.is_over = true;
            let urls = JobUrls { base: &connection.base, signer: &connection.api.signer };
            push_end(&mut text, &job, &urls);
        }
        Ok(Some(News::State(job))) => push(&mut text, JobEvent::Status, &status_json(&job)),
        Ok(Some(News::Step(frame))) => push(&mut text, JobEvent::Progress, &progress_json(&frame)),
        Ok(Some(News::Gone)) => {
            connection.is_over = true;
            push(&mut text, JobEvent::End, &json!({ "error": ApiError::NO_JOB.to_string() }).to_string());
        }
        // No `end` when the server stops: the browser reconnects.
        Ok(None) | Err(NoNews::Stopping) => return None,
        Err(NoNews::Failed(error)) => {
            connection.is_over = true;
            return Some((Err(error), connection));
        }
        Err(NoNews::Yet) => text.push_str(": still here\n\n"),
    }
    Some((Ok(Bytes::from(text)), connection))
}

/// Why there is no news.
enum NoNews {
    Yet,
    Stopping,
    Failed(ApiError),
}

impl Connection {
    async fn news(&mut self) -> Result<Option<News>, NoNews> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let mut stopping = self.api.stopping.clone();
        let stopped = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
        let news = std::pin::pin!(actix_web::rt::time::timeout(HEARTBEAT, self.follower.next()));
        match select(stopped, news).await {
            Either::Left(_) => Err(NoNews::Stopping),
            Either::Right((Err(_), _)) => Err(NoNews::Yet),
            Either::Right((Ok(news), _)) => news.map_err(|error| NoNews::Failed(error.into())),
        }
    }
}

fn push_end(text: &mut String, job: &JobOutline, urls: &JobUrls<'_>) {
    for image in &job.images {
        push(text, JobEvent::Image, &image_json(job, image, urls));
    }
    text.push_str("id: ");
    text.push_str(LAST_EVENT_ID);
    text.push('\n');
    push(text, JobEvent::End, &end_json(job));
}

/// Appends an event. JSON text has no line breaks, so it fits into one `data` field.
fn push(text: &mut String, event: JobEvent, data: &str) {
    for field in ["event: ", event.name(), "\ndata: ", data, "\n\n"] {
        text.push_str(field);
    }
}
