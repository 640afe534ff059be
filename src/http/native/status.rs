//! `GET|POST /status/{id}`: the job as it is now, in the body that all answers about a job share.

use actix_web::{HttpRequest, HttpResponse, web};

use super::json_text;
use crate::domain::Job;
use crate::http::request::{Api, ApiError, JobPath};
use crate::wire::{JobUrls, status_body};

pub async fn status(
    api: web::Data<Api>,
    path: JobPath,
    request: HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let job = api.find(&path.endpoint, &path.id).await?;
    Ok(json_text(api.status_body(&request, &job)))
}

impl Api {
    /// The status body of a job. Its image URLs use the address that this client used.
    pub(super) fn status_body(&self, request: &HttpRequest, job: &Job) -> String {
        let base = if job.images.is_empty() { String::new() } else { self.base_url(request) };
        let urls = JobUrls { base: &base, signer: &self.signer };
        status_body(job, self.queue.progress(&job.id), self.queue.now(), &urls)
    }
}
