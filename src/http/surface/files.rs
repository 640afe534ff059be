//! `GET|HEAD /v2/{endpoint}/images/{id}/{index}/{finish}?expires=…&signature=…`: a stored picture, enlarged or encoded as
//! a surface's answer promised. The signature covers the finish too, and replaces the key.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::Finish;
use crate::domain::{ImageRef, JobId, JobOutline};
use crate::http::request::{Api, ApiError, Endpoint, SignedQuery, canonical};
use crate::wire::{JobUrls, SignedResource};

/// The URL at which a picture can be fetched until its job is deleted. None if the picture is withheld.
pub fn url(api: &Api, base: &str, job: &JobOutline, image: &ImageRef, finish: Finish) -> Option<String> {
    let urls = JobUrls { base, signer: &api.signer };
    if finish.is_plain() {
        return urls.outline_image(job, image);
    }
    urls.finished_image(job, image, &finish.to_string())
}

pub async fn file(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let endpoint = Endpoint::from_path(&request)?.id;
    let path = request.match_info();
    let id = path.get("id").and_then(JobId::parse).ok_or(ApiError::BadSignature)?;
    let index: u32 = canonical(path.get("index").unwrap_or_default()).ok_or(ApiError::BadSignature)?;
    let name = path.get("finish").unwrap_or_default();
    let SignedQuery { expires, signature } = SignedQuery::find(&request)?.ok_or(ApiError::BadSignature)?;
    if !api.signer.verifies(SignedResource::FinishedImage(index, name), &endpoint, &id, expires, &signature) {
        return Err(ApiError::BadSignature);
    }
    let finish = Finish::parse(name).ok_or(ApiError::BadSignature)?;
    let rest = expires.saturating_sub(api.queue.now().unix_seconds());
    if rest <= 0 {
        return Err(ApiError::NO_IMAGE);
    }
    let png = api.queue.image(&endpoint, &id, index).await?.ok_or(ApiError::NO_IMAGE)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, format!("private, max-age={rest}")))
        .content_type(finish.format.content_type())
        .body(finish.apply(png).await?))
}
