//! `GET|POST /stream/{id}`: the output of a job that no reader has seen yet.
//!
//! The answer waits until there is output, or until [`HOLD`] has passed, because the JavaScript client asks again at
//! once. Reading removes the output: the Python client reads until a job that has ended answers an empty array. The
//! answer with a final state carries everything that is left, because the JavaScript client stops there.

use std::time::Duration;

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use crate::http::request::{Api, ApiError, JobPath};
use crate::queue::Drained;
use crate::wire::{JobUrls, JsonObject, image_json, progress_json};

/// Half of the 10 s that the Python client waits.
const HOLD: Duration = Duration::from_secs(5);

pub async fn stream(
    api: web::Data<Api>,
    path: JobPath,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let drained = match *request.method() {
        // The answer has no body, so reading must not remove any output.
        Method::HEAD => {
            let job = api.queue.outline(&path.endpoint, &path.id).await?.ok_or(ApiError::NO_JOB)?;
            Drained { job, frame: None, images: Vec::new() }
        }
        _ => api.drain(&path.endpoint, &path.id, HOLD).await?,
    };
    let base = api.base_url(&request);
    Ok(json_text(body(&drained, &JobUrls { base: &base, signer: &api.signer })))
}

fn body(drained: &Drained, urls: &JobUrls<'_>) -> String {
    let steps = drained.frame.iter().map(progress_json);
    let pictures = drained.images.iter().map(|image| image_json(&drained.job, image, urls));
    let chunks: Vec<String> =
        steps.chain(pictures).map(|output| JsonObject::default().raw("output", &output).finish()).collect();
    JsonObject::default()
        .field("status", &drained.job.status)
        .raw("stream", &format!("[{}]", chunks.join(",")))
        .finish()
}
