//! `POST /v1/images/generations`: pictures from a prompt.

use actix_web::{HttpRequest, HttpResponse, web};

use super::OpenAi;
use super::ask::Ask;
use super::error::OpenAiError;
use super::respond::{Kind, respond};
use crate::http::request::Api;
use crate::http::request::body::{self as request_body, Body};
use crate::http::surface::{Visitor, body};

pub async fn generations(
    api: web::Data<Api>,
    visitor: Visitor<OpenAi>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    let Body { bytes: sent, held } = request_body::read(&request, payload, request_body::RUN_LIMIT).await?;
    let served = api.clone();
    let read = move |sent: web::Bytes| {
        let mut ask = Ask::read(&body::json(&sent)?, &served.endpoints, None)?;
        let job = ask.job()?;
        Ok::<_, OpenAiError>((ask, job))
    };
    let read = body::on_body(sent, read).await?;
    respond(api, visitor, &request, Kind::Generation, read, held).await
}
