//! `GET|HEAD /images/{id}/{index}.png?expires=…&signature=…`: a finished picture.
//!
//! The signature stands in for a key, so that the URL works in a browser and in another program.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::signed_query::{SignedQuery, canonical};
use super::{Api, ApiError, Endpoint};
use crate::domain::JobId;
use crate::wire::Opens;

pub async fn image(api: web::Data<Api>, request: HttpRequest) -> Result<HttpResponse, ApiError> {
    let endpoint = Endpoint::of(&request)?.id;
    let path = request.match_info();
    // Whatever is not to the letter what we signed, we did not sign.
    let id = path.get("id").and_then(JobId::parse).ok_or(ApiError::BadSignature)?;
    let index: u32 = canonical(path.get("index").unwrap_or_default()).ok_or(ApiError::BadSignature)?;
    let SignedQuery { expires, signature } = SignedQuery::find(&request)?.ok_or(ApiError::BadSignature)?;
    if !api.signer.verifies(Opens::Image(index), &endpoint, &id, expires, &signature) {
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
    // A picture never changes, so its name is tag enough.
    if request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok(response.status(actix_web::http::StatusCode::NOT_MODIFIED).finish());
    }
    Ok(response.content_type("image/png").body(png))
}
