//! What those who watch a job are shown, piece by piece, as JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::status_body::{Picture, ms};
use super::{ImageUrls, JsonObject};
use crate::domain::{Frame, ImageRef, JobOutline};

/// A step: how far the job is, and how its picture looks so far where there is a new preview.
pub fn step_of(frame: &Frame) -> String {
    let mut body = JsonObject::default();
    body.field("step", &frame.progress.step)
        .field("steps", &frame.progress.steps)
        .field("eta_ms", &frame.progress.eta.map(ms));
    if let Some(png) = &frame.preview {
        body.field("preview", &format!("data:image/png;base64,{}", STANDARD.encode(png)));
    }
    body.finish()
}

/// A finished picture, as the status body's `output` lists it.
pub fn picture_of(job: &JobOutline, image: &ImageRef, urls: &ImageUrls<'_>) -> String {
    let picture = Picture::new(image, urls.url_in(job, image));
    serde_json::to_string(&picture).unwrap_or_default()
}

/// The state that a job has come to.
pub fn state_of(job: &JobOutline) -> String {
    JsonObject::default().field("id", &job.id).field("status", &job.status).finish()
}

/// The same of one that has ended, with the reason where it failed.
pub fn end_of(job: &JobOutline) -> String {
    let mut body = JsonObject::default();
    if let Some(error) = &job.error {
        body.field("error", error);
    }
    body.field("id", &job.id).field("status", &job.status).finish()
}
