//! `GET|POST /stream/{id}`: what a job has brought since this was asked last.
//!
//! Held until there is something, or [`HOLD`] has passed: the JavaScript client asks again at once. Drained on
//! read: the Python client goes on until a job that has ended brings an empty array. A final state brings all that is
//! left with it, for the JavaScript client stops there.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};

use super::{Api, ApiError, JobPath, json_text};
use crate::queue::Drained;
use crate::wire::{ImageUrls, JsonObject, picture_of, step_of};

/// Half of the 10 s for which the Python client waits.
const HOLD: Duration = Duration::from_secs(5);

pub async fn stream(
    api: web::Data<Api>,
    path: JobPath,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let drained = match *request.method() {
        // It is answered without a body, which must not be lost with it.
        Method::HEAD => {
            let job = api.queue.outline(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
            Drained { job, frame: None, images: Vec::new() }
        }
        _ => api.drain(&path.endpoint, &path.id, HOLD).await?,
    };
    let base = api.base_url(&request);
    Ok(json_text(body(&drained, &ImageUrls { base: &base, signer: &api.signer })))
}

fn body(drained: &Drained, urls: &ImageUrls<'_>) -> String {
    let steps = drained.frame.iter().map(step_of);
    let pictures = drained.images.iter().map(|image| picture_of(&drained.job, image, urls));
    let chunks: Vec<String> =
        steps.chain(pictures).map(|output| JsonObject::default().raw("output", &output).finish()).collect();
    JsonObject::default()
        .field("status", &drained.job.status)
        .raw("stream", &format!("[{}]", chunks.join(",")))
        .finish()
}
