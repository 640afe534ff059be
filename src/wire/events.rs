//! The events of a job that is followed: their names, and their data as JSON text.
//!
//! The stream route sends the same data without the names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::status_body::{Picture, ms};
use super::{JobUrls, JsonObject};
use crate::domain::{Frame, ImageRef, JobOutline};

/// A Server-Sent Event of a job. The names belong to the contract: code that sends or describes them takes them here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// The job is in another state, which is not final.
    Status,
    /// A step is done.
    Progress,
    /// A finished picture.
    Image,
    /// The job has ended: the last event.
    End,
}

impl JobEvent {
    /// In the order in which a job sends them.
    pub const ALL: [Self; 4] = [Self::Status, Self::Progress, Self::Image, Self::End];

    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Progress => "progress",
            Self::Image => "image",
            Self::End => "end",
        }
    }
}

/// The data of [`JobEvent::Status`].
pub fn status_json(job: &JobOutline) -> String {
    JsonObject::default().field("id", &job.id).field("status", &job.status).finish()
}

/// The data of [`JobEvent::Progress`]: the step, the time left and, if there is a new one, a preview.
pub fn progress_json(frame: &Frame) -> String {
    let mut body = JsonObject::default();
    body.field("step", &frame.progress.step)
        .field("steps", &frame.progress.steps)
        .field("eta_ms", &frame.progress.eta.map(ms));
    if let Some(png) = &frame.preview {
        body.field("preview", &format!("data:image/png;base64,{}", STANDARD.encode(png)));
    }
    body.finish()
}

/// The data of [`JobEvent::Image`]: a picture as the status body's `output` lists it.
pub fn image_json(job: &JobOutline, image: &ImageRef, urls: &JobUrls<'_>) -> String {
    let picture = Picture::new(image, urls.outline_image(job, image));
    serde_json::to_string(&picture).unwrap_or_default()
}

/// The data of [`JobEvent::End`]: the final state and, if the job failed, the reason; otherwise what its client should know.
pub fn end_json(job: &JobOutline) -> String {
    let mut body = JsonObject::default();
    if let Some(error) = &job.error {
        body.field("error", error);
    }
    body.field("id", &job.id).field("status", &job.status);
    if !job.warnings.is_empty() {
        body.field("warnings", &job.warnings);
    }
    body.finish()
}
