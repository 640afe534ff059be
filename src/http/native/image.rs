//! `GET|HEAD /images/{id}/{index}.png?expires=…&signature=…`: a finished picture.
//!
//! The signature replaces the key, so that the URL works in a browser and in other programs.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::domain::JobId;
use crate::http::request::{Api, ApiError, Endpoint, SignedQuery, canonical};
use crate::wire::SignedResource;

pub async fn image(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let endpoint = Endpoint::from_path(&request)?.id;
    let path = request.match_info();
    // Any spelling other than ours is refused.
    let id = path.get("id").and_then(JobId::parse).ok_or(ApiError::BadSignature)?;
    let index: u32 = canonical(path.get("index").unwrap_or_default()).ok_or(ApiError::BadSignature)?;
    let SignedQuery { expires, signature } = SignedQuery::find(&request)?.ok_or(ApiError::BadSignature)?;
    if !api.signer.verifies(SignedResource::Image(index), &endpoint, &id, expires, &signature) {
        return Err(ApiError::BadSignature);
    }

    let rest = expires.saturating_sub(api.queue.now().unix_seconds());
    if rest <= 0 {
        return Err(ApiError::NO_IMAGE);
    }
    let png = api.queue.image(&endpoint, &id, index).await?.ok_or(ApiError::NO_IMAGE)?;
    let etag = format!("\"{id}-{index}\"");
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CACHE_CONTROL, format!("private, max-age={rest}")))
        .insert_header((header::ETAG, etag.clone()))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    // A picture never changes, so its name is its tag.
    if request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    Ok(response.content_type("image/png").body(png))
}
