//! `POST /huggingface` and `POST /huggingface/{model}`: one picture, as its bytes.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};

use super::ask::Ask;
use super::{HuggingFace, HuggingFaceError};
use crate::http::request::Api;
use crate::http::request::body::{self as request_body, Body};
use crate::http::surface::{Dialect, Drawing, SurfaceError, Visitor, body};

pub async fn draw(
    api: web::Data<Api>,
    _visitor: Visitor<HuggingFace>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, HuggingFaceError> {
    let Body { bytes: sent, held } = request_body::read(&request, payload, request_body::RUN_LIMIT).await?;
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let accept = accept.unwrap_or_default().to_owned();
    let model = request.match_info().get("model").map(str::to_owned);
    let served = api.clone();
    let read =
        move |sent: web::Bytes| Ask::read(&body::json(&sent)?, &served.endpoints, model.as_deref(), &accept);
    let Ask { job, finish } = body::on_body(sent, read).await?;
    let mut drawing = Drawing::submit(api.clone(), job, HuggingFace::SURFACE).await?;
    drop(held);
    let job = drawing.end().await?;
    let picture = match job.images.first() {
        Some(image) => drawing.picture(image, finish).await?,
        None => None,
    };
    let picture = picture.ok_or(SurfaceError::Withheld)?;
    Ok(HttpResponse::Ok().content_type(finish.format.content_type()).body(picture))
}
