//! `POST /sdapi/v1/png-info`: the text in a picture that says how it was made.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use super::error::A1111Error;
use super::{A1111, State, infotext};
use crate::diffusion::image::png_texts;
use crate::domain::ImageSource;
use crate::http::request::body::{self as request_body, Body};
use crate::http::surface::{FieldError, Fields, Visitor, body};

const PARAMETERS: &str = "parameters";

pub async fn png_info(
    _state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    let Body { bytes: sent, held: _held } =
        request_body::read(&request, payload, request_body::RUNSYNC_LIMIT).await?;
    let answer = body::on_body(sent, |sent| Ok::<_, A1111Error>(read(&body::json(&sent)?)?)).await?;
    Ok(HttpResponse::Ok().json(answer))
}

fn read(fields: &Fields) -> Result<Value, FieldError> {
    let image = picture(fields, "image")?;
    // Only PNG files have texts that are read here.
    let texts = png_texts(&image).unwrap_or_default();
    let info = texts.iter().find(|(keyword, _)| keyword == PARAMETERS).map(|(_, text)| text.as_str());
    let items: Map<String, Value> = texts
        .iter()
        .filter(|(keyword, _)| keyword != PARAMETERS)
        .map(|(keyword, text)| (keyword.clone(), Value::from(text.as_str())))
        .collect();
    let parameters = info.map(infotext::parse).unwrap_or_default();
    Ok(json!({ "info": info.unwrap_or_default(), "items": items, "parameters": parameters }))
}

/// The whole file of a picture in base64 or a data URI: its texts too, which no decoder of pixels should see.
pub fn picture(fields: &Fields, name: &str) -> Result<Vec<u8>, FieldError> {
    let text = fields.value(&[name]).and_then(Value::as_str);
    let text = text.ok_or_else(|| FieldError::new(name, format!("{name} is a required input.")))?;
    decode(text, name)
}

pub fn decode(text: &str, name: &str) -> Result<Vec<u8>, FieldError> {
    let unusable =
        |sentence: String| FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"));
    if let ImageSource::Url(_) = ImageSource::parse(text).map_err(unusable)? {
        return Err(FieldError::new(name, format!("{name} cannot be a URL: send the picture itself.")));
    }
    ImageSource::file(text).map_err(unusable)
}
