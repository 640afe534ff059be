//! `GET|POST /sdapi/v1/options`: the settings that have a meaning here. `GET /sdapi/v1/cmd-flags`.

use actix_web::http::Method;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::choices::{CHECKPOINT, CLIP_SKIP, FORMAT, NOISE};
use super::error::A1111Error;
use super::{A1111, State, checkpoint};
use crate::diffusion::image::PictureFile;
use crate::domain::NoiseSource;
use crate::http::request::Api;
use crate::http::request::body::{self as request_body, Body};
use crate::http::surface::{FieldError, Visitor, body};

pub async fn options(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    if *request.method() != Method::POST {
        return Ok(HttpResponse::Ok().json(all(&api, &state)));
    }
    let Body { bytes: sent, held: _held } =
        request_body::read(&request, payload, request_body::RUN_LIMIT).await?;
    let fields = body::on_body(sent, |sent| body::json(&sent)).await?;
    let (chosen, unknown) = state.choices.get().with(&fields, &api.endpoints)?;
    if let Some(name) = unknown {
        let known: Vec<String> = api.endpoints.iter().map(checkpoint::title).collect();
        let sentence = format!("The checkpoint {name} is not here: this server has {}.", known.join(", "));
        return Err(FieldError::new(CHECKPOINT, sentence).into());
    }
    state.choices.set(chosen);
    Ok(HttpResponse::Ok().json(()))
}

/// There is no `forge_preset`: clients take that for Forge.
fn all(api: &Api, state: &State) -> Value {
    let chosen = state.choices.get();
    let format = match chosen.format() {
        PictureFile::Jpeg => "jpg",
        other => other.as_str(),
    };
    let noise = match chosen.noise() {
        NoiseSource::Cpu => "CPU",
        NoiseSource::Cuda => "NV",
    };
    json!({
        CHECKPOINT: chosen.endpoint(&api.endpoints).map(checkpoint::title),
        "sd_checkpoint_hash": "",
        FORMAT: format,
        CLIP_SKIP: chosen.clip_skip.unwrap_or(1),
        "sd_vae": "Automatic",
        NOISE: noise,
        "eta_noise_seed_delta": 0,
    })
}

pub async fn cmd_flags(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "api": true }))
}
