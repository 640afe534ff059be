//! `POST /sdapi/v1/extra-single-image` and `/extra-batch-images`: pictures are enlarged, each by an ordinary job.

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use super::answer::with_files;
use super::error::A1111Error;
use super::png_info::{decode, picture};
use super::{A1111, State};
use crate::diffusion::image::{decode_image, encode_png, png_texts};
use crate::domain::{Enlarged, ImageSize, JobKind, NewJob, UPSCALE_GRID, pixel_chunks};
use crate::http::request::body::{self as request_body, Body, Held};
use crate::http::request::{Api, ServedEndpoint};
use crate::http::surface::{
    Dialect, Drawing, FieldError, Fields, Finish, MAX_TOTAL, NotDrawn, Translation, Visitor, body, heavy,
    upload,
};
use crate::wire::JsonObject;

/// A1111's defaults.
const SCALE: f64 = 2.0;
const SIDE: u32 = 512;
const MOST_PICTURES: usize = 64;
/// The fields of `upscale`, and the client's.
const SENT_AS: [(&str, &str); 4] = [
    ("upscale.model", "upscaler_1"),
    ("upscale.scale", "upscaling_resize"),
    ("upscale.width", "upscaling_resize_w"),
    ("upscale.height", "upscaling_resize_h"),
];
/// Answers whose pictures are smaller need no room of their own.
const ROOM: usize = 1024;

pub async fn single(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    let read = |fields: &Fields| Ok(vec![picture(fields, "image")?]);
    let mut files = enlarge(&api, &state, &request, payload, read).await?;
    let file = files.pop().unwrap_or_default();
    let body = heavy(move || {
        let mut body = JsonObject::after(String::with_capacity(file.len() / 3 * 4 + ROOM));
        body.field("html_info", &"").base64("image", &file).finish()
    });
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body.await?))
}

pub async fn batch(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    let files = enlarge(&api, &state, &request, payload, listed).await?;
    let body = heavy(move || {
        let length: usize = files.iter().map(Vec::len).sum();
        let mut body = JsonObject::after(String::with_capacity(length / 3 * 4 + ROOM));
        body.field("html_info", &"").list("images", |text| with_files(text, files.into_iter())).finish()
    });
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body.await?))
}

/// The pictures of `imageList`: objects with their `data`, or texts.
fn listed(fields: &Fields) -> Result<Vec<Vec<u8>>, FieldError> {
    const NAME: &str = "imageList";
    let pictures = fields.value(&[NAME]).and_then(Value::as_array);
    let pictures = pictures.ok_or_else(|| FieldError::new(NAME, format!("{NAME} is a required input.")))?;
    if pictures.len() > MOST_PICTURES {
        let sentence =
            format!("{NAME} has {} pictures; at most {MOST_PICTURES} are allowed.", pictures.len());
        return Err(FieldError::new(NAME, sentence));
    }
    let read = |picture: &Value| {
        let text = picture.as_str().or_else(|| picture.get("data")?.as_str());
        let text = text
            .ok_or_else(|| FieldError::new(NAME, format!("{NAME} should hold objects with their data.")))?;
        decode(text, NAME)
    };
    pictures.iter().map(read).collect()
}

/// What is to be done to all pictures of a request.
#[derive(Debug, Clone)]
struct Enlargement {
    /// None leaves the pictures as they are, whatever else is asked: A1111's upscaler None.
    upscaler: Option<String>,
    to: Target,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Scale(f64),
    /// The picture covers this size. What lies beyond is cut off, or stays.
    Size {
        size: ImageSize,
        cuts: bool,
    },
}

impl Target {
    /// The client's name of it.
    fn name(self) -> &'static str {
        match self {
            Self::Scale(_) => "upscaling_resize",
            Self::Size { .. } => "upscaling_resize_w",
        }
    }
}

/// Every picture of the request, enlarged. Pictures are read on a thread for blocking work.
async fn enlarge(
    api: &web::Data<Api>,
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
    pictures: impl Fn(&Fields) -> Result<Vec<Vec<u8>>, FieldError> + Send + 'static,
) -> Result<Vec<Vec<u8>>, A1111Error> {
    let Body { bytes: sent, held } =
        request_body::read(request, payload, request_body::RUNSYNC_LIMIT).await?;
    let endpoint = state.choices.get().endpoint(&api.endpoints).cloned();
    let endpoint = endpoint.ok_or_else(|| A1111Error::Unsupported("This server has no model.".to_owned()))?;
    let read = move |sent: web::Bytes| {
        let fields = body::json(&sent)?;
        let (enlargement, pictures) = (Enlargement::read(&fields)?, pictures(&fields)?);
        enlargement.check_total(&pictures)?;
        Ok::<_, A1111Error>((enlargement, pictures))
    };
    let (enlargement, pictures) = body::on_body(sent, read).await?;
    let mut files = Vec::new();
    let (mut left, mut held) = (pictures.len(), Some(held));
    for picture in pictures {
        left -= 1;
        // The last job takes what is left of the body with it.
        let held = if left == 0 { held.take() } else { None };
        let (enlargement, endpoint) = (enlargement.clone(), endpoint.clone());
        files.push(if enlargement.upscaler.is_none() {
            heavy(move || as_png(&picture)).await??
        } else {
            draw(api, heavy(move || enlargement.job(&picture, &endpoint)).await??, held).await?
        });
    }
    Ok(files)
}

async fn draw(api: &web::Data<Api>, job: NewJob, held: Option<Held>) -> Result<Vec<u8>, A1111Error> {
    let mut drawing = Drawing::submit(api.clone(), job, A1111::SURFACE).await?;
    drop(held);
    let job = drawing.end().await?;
    let image = job.images.first().ok_or(NotDrawn::Expired)?;
    Ok(drawing.picture(image, Finish::default()).await?.ok_or(NotDrawn::Expired)?)
}

/// The picture as a PNG file that keeps its texts.
fn as_png(picture: &[u8]) -> Result<Vec<u8>, A1111Error> {
    let texts = png_texts(picture).unwrap_or_default();
    let texts: Vec<(&str, &str)> =
        texts.iter().map(|(keyword, text)| (keyword.as_str(), text.as_str())).collect();
    let file = decode_image(&pixel_chunks(picture)).and_then(|image| encode_png(&image, &texts));
    file.map_err(|error| FieldError::new("image", format!("image cannot be decoded: {error}.")).into())
}

impl Enlargement {
    fn read(fields: &Fields) -> Result<Self, A1111Error> {
        let upscaler = |name: &str| -> Result<Option<String>, FieldError> {
            Ok(fields.text(&[name])?.filter(|name| !name.trim().eq_ignore_ascii_case("none")))
        };
        for name in ["gfpgan_visibility", "codeformer_visibility"] {
            if fields.number(&[name])?.unwrap_or(0.0) > 0.0 {
                return Err(A1111Error::Unsupported(format!(
                    "{name} should be 0: there is no face restorer here."
                )));
            }
        }
        if upscaler("upscaler_2")?.is_some()
            && fields.number(&["extras_upscaler_2_visibility"])?.unwrap_or(0.0) > 0.0
        {
            return Err(A1111Error::Unsupported(
                "upscaler_2 is not supported: use upscaler_1 alone.".to_owned(),
            ));
        }
        let side = |name: &str| -> Result<u32, FieldError> {
            let side = fields.integer(&[name])?.unwrap_or(SIDE.into());
            let unmet = || FieldError::new(name, format!("{name} is {side}; it must be a number of pixels."));
            u32::try_from(side).ok().filter(|side| *side > 0).ok_or_else(unmet)
        };
        let to = match fields.integer(&["resize_mode"])?.unwrap_or(0) {
            1 => Target::Size {
                size: ImageSize { width: side("upscaling_resize_w")?, height: side("upscaling_resize_h")? },
                cuts: fields.flag(&["upscaling_crop"])?.unwrap_or(true),
            },
            _ => Target::Scale(fields.number(&["upscaling_resize"])?.unwrap_or(SCALE)),
        };
        Ok(Self { upscaler: upscaler("upscaler_1")?, to })
    }

    /// Checks that all pictures fit into memory together as they are answered.
    fn check_total(&self, pictures: &[Vec<u8>]) -> Result<(), FieldError> {
        let total: u64 = pictures.iter().map(|picture| self.pixels(picture)).sum();
        if total > MAX_TOTAL {
            let name = if self.upscaler.is_none() { "imageList" } else { self.to.name() };
            return Err(FieldError::new(
                name,
                format!("{name} asks for {total} pixels together; at most {MAX_TOTAL} are allowed."),
            ));
        }
        Ok(())
    }

    /// The pixels that a picture will have. 0 for one that cannot be read, which is refused later.
    fn pixels(&self, picture: &[u8]) -> u64 {
        let Some(size) = upload::size(&pixel_chunks(picture)) else { return 0 };
        let own = u64::from(size.width) * u64::from(size.height);
        if self.upscaler.is_none() {
            return own;
        }
        let enlarged = match self.to {
            Target::Scale(scale) => Enlarged::Scale(scale),
            Target::Size { size: target, cuts } => {
                let wanted = sides(target, cuts, Some(size));
                let along = |name| wanted.iter().find(|(side, _)| *side == name).map(|(_, pixels)| *pixels);
                Enlarged::Sides { width: along("width"), height: along("height") }
            }
        };
        // One that would be too large is refused by the job.
        let target = enlarged.target(size, UPSCALE_GRID).map_or(size, |target| target.kept);
        u64::from(target.width) * u64::from(target.height)
    }

    /// The job for one picture. Blocks while it checks the picture.
    fn job(&self, picture: &[u8], endpoint: &ServedEndpoint) -> Result<NewJob, A1111Error> {
        let mut upscale = Map::new();
        upscale.insert("model".to_owned(), json!(self.upscaler));
        match self.to {
            Target::Scale(scale) => {
                upscale.insert("scale".to_owned(), json!(scale));
            }
            Target::Size { size, cuts } => {
                for (name, side) in sides(size, cuts, upload::size(&pixel_chunks(picture))) {
                    upscale.insert(name.to_owned(), json!(side));
                }
            }
        }
        let mut to = Translation::default();
        to.set_from("upscale", "upscaler_1", upscale);
        for (name, sent_as) in SENT_AS {
            to.sent_as(name, sent_as);
        }
        to.set_from("init_image", "image", upload::base64(&pixel_chunks(picture)));
        to.into_job::<A1111>(endpoint, JobKind::Held)
    }
}

/// The sides to enlarge to. With one alone, the other keeps the shape: that which makes the picture cover the size.
fn sides(size: ImageSize, cuts: bool, picture: Option<ImageSize>) -> Vec<(&'static str, u32)> {
    let (width, height) = (("width", size.width), ("height", size.height));
    let Some(picture) = picture.filter(|_| !cuts) else { return vec![width, height] };
    let by_width = u64::from(size.width) * u64::from(picture.height);
    let by_height = u64::from(size.height) * u64::from(picture.width);
    if by_width >= by_height { vec![width] } else { vec![height] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_covered_with_a_cut_or_without() {
        let size = |(width, height)| ImageSize { width, height };
        let to = |target, cuts, picture| sides(size(target), cuts, Some(size(picture)));
        assert_eq!(to((800, 600), true, (100, 100)), [("width", 800), ("height", 600)]);
        assert_eq!(to((800, 600), false, (100, 100)), [("width", 800)]);
        assert_eq!(to((800, 600), false, (200, 100)), [("height", 600)]);
        assert_eq!(sides(size((8, 6)), false, None).len(), 2);
    }
}
