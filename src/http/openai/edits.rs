//! `POST /v1/images/edits`: a picture changed by a prompt, all of it or what a mask shows. The body is a form, or JSON.

use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;

use super::OpenAi;
use super::ask::{self, Ask};
use super::error::OpenAiError;
use super::respond::{Kind, respond};
use crate::domain::{ImageSource, NewJob};
use crate::http::request::body::{self as request_body, Body};
use crate::http::request::{Api, Endpoints};
use crate::http::surface::{FieldError, Fields, Form, Translation, Visitor, body, heavy, upload};

/// How much of the picture may change when the request does not say.
const STRENGTH: f64 = 0.75;

pub async fn edits(
    api: web::Data<Api>,
    visitor: Visitor<OpenAi>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, OpenAiError> {
    let Body { bytes: sent, held } =
        request_body::read(&request, payload, request_body::RUNSYNC_LIMIT).await?;
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    let served = api.clone();
    let read = heavy(move || read(&content_type, sent, &served.endpoints)).await??;
    respond(api, visitor, &request, Kind::Edit, read, held).await
}

/// What to edit.
struct Pictures {
    /// The name of its field, and the picture.
    image: (String, Picture),
    mask: Option<Picture>,
}

enum Picture {
    File(Bytes),
    Url(String),
}

fn read(content_type: &str, sent: Bytes, endpoints: &Endpoints) -> Result<(Ask, NewJob), OpenAiError> {
    let (fields, pictures) = if Form::is_announced(content_type) {
        let form = Form::read(content_type, sent, |name| is_image(name) || name == "mask")?;
        let pictures = Pictures::in_form(&form)?;
        (form.fields, pictures)
    } else {
        let fields = body::json(&sent)?;
        let pictures = Pictures::in_json(&fields)?;
        (fields, pictures)
    };
    let size = match &pictures.image.1 {
        Picture::File(bytes) => upload::size(bytes),
        Picture::Url(_) if says_its_size(&fields)? => None,
        // It is fetched after the job has begun, when its size is settled. Our default would squash it.
        Picture::Url(_) => {
            return Err(FieldError::new(
                "size",
                "size is a required input for a picture's URL, such as 512x768: without it, send the picture as a file or \
                 as a data URI.",
            )
            .into());
        }
    };
    let mut ask = Ask::read(&fields, endpoints, size)?;
    // A model that changes pictures as the prompt says takes neither a mask nor a strength: those that the request did not
    // send would count against it.
    let edits_as_told = ask.endpoint.rules.edits_images;
    if !edits_as_told && fields.name_of(&["prompt_strength", "strength"]).is_none() {
        ask.translation.set("prompt_strength", STRENGTH);
    }
    pictures.translate(edits_as_told, &mut ask.translation)?;
    let job = ask.job()?;
    Ok((ask, job))
}

fn says_its_size(fields: &Fields) -> Result<bool, FieldError> {
    let has = |name| fields.name_of(&[name]).is_some();
    Ok(ask::size(fields)?.is_some() || has("width") && has("height"))
}

/// `image`, `image[]` and `image[0]` are all in use.
fn is_image(name: &str) -> bool {
    name == "image" || name.starts_with("image[") || name == "images"
}

impl Pictures {
    fn in_form(form: &Form) -> Result<Self, FieldError> {
        // Further pictures are ignored: our models start from one.
        let image = form.files.iter().find(|file| is_image(&file.name)).ok_or_else(no_image)?;
        let mask = form.files.iter().find(|file| file.name == "mask" && !file.bytes.is_empty());
        let mask = mask.map(|mask| Picture::File(mask.bytes.clone()));
        Ok(Self { image: (image.name.clone(), Picture::File(image.bytes.clone())), mask })
    }

    fn in_json(fields: &Fields) -> Result<Self, FieldError> {
        let names = ["image", "images", "image[]"];
        let (Some(name), Some(value)) = (fields.name_of(&names), fields.value(&names)) else {
            return Err(no_image());
        };
        let image = picture(name, value)?.ok_or_else(no_image)?;
        let mask = fields.value(&["mask"]).map(|mask| picture("mask", mask)).transpose()?.flatten();
        Ok(Self { image: (name.to_owned(), image), mask })
    }

    /// Transparent parts are repainted: of the mask or, without one, of the picture. A mask without transparent parts is
    /// one of ours, whose white parts are repainted. A picture that is edited as a whole gives no mask.
    fn translate(self, as_a_whole: bool, to: &mut Translation) -> Result<(), FieldError> {
        let (name, image) = self.image;
        let undecodable = |name: &str, sentence: String| {
            FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
        };
        let mask = match (&self.mask, &image) {
            (Some(Picture::File(mask)), _) => {
                let transparent = upload::mask_from_transparency(mask);
                let transparent = transparent.map_err(|sentence| undecodable("mask", sentence))?;
                Some(transparent.unwrap_or_else(|| upload::base64(mask)))
            }
            (Some(Picture::Url(_)), _) => {
                let sentence = "mask cannot be a URL: send it as a file or as a data URI.";
                return Err(FieldError::new("mask", sentence));
            }
            // What is no picture at all is refused with the other fields.
            (None, Picture::File(image)) if !as_a_whole && upload::size(image).is_some() => {
                upload::mask_from_transparency(image).map_err(|sentence| undecodable(&name, sentence))?
            }
            (None, _) => None,
        };
        let image = match image {
            Picture::File(bytes) => upload::base64(&bytes),
            Picture::Url(url) => url,
        };
        to.set_from("init_image", &name, image);
        if let Some(mask) = mask {
            to.set_from("mask", "mask", mask);
        }
        Ok(())
    }
}

fn no_image() -> FieldError {
    FieldError::new("image", "image is a required input: send the picture to edit.")
}

/// A picture in JSON: its text, an object with its text, or the first of a list.
fn picture(name: &str, value: &Value) -> Result<Option<Picture>, FieldError> {
    match value {
        Value::String(text) => {
            let source = ImageSource::parse(text).map_err(|sentence| {
                FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
            })?;
            Ok(Some(match source {
                ImageSource::Bytes(bytes) => Picture::File(Bytes::from_owner(bytes)),
                ImageSource::Url(_) => Picture::Url(text.trim().to_owned()),
            }))
        }
        Value::Array(items) => items.first().map_or(Ok(None), |first| picture(name, first)),
        Value::Object(fields) => match fields.get("image_url").or_else(|| fields.get("url")) {
            Some(inner) => picture(name, inner),
            None => Err(FieldError::new(
                name,
                format!("{name} should be a picture's URL or data URI, or an object with its image_url."),
            )),
        },
        _ => Ok(None),
    }
}
