//! `GET /v1/models` and `/v1/models/{id}`: the endpoints of this server.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::OpenAi;
use super::error::OpenAiError;
use crate::http::request::{Api, ServedEndpoint};
use crate::http::surface::{SurfaceError, Visitor};

pub async fn models(api: web::Data<Api>, _visitor: Visitor<OpenAi>) -> HttpResponse {
    let data: Vec<Value> = api.endpoints.iter().map(|endpoint| model(&api, endpoint)).collect();
    HttpResponse::Ok().json(json!({ "object": "list", "data": data }))
}

pub async fn one(
    api: web::Data<Api>,
    _visitor: Visitor<OpenAi>,
    id: web::Path<String>,
) -> Result<HttpResponse, OpenAiError> {
    let endpoint = api.endpoints.named(&id).ok_or_else(|| SurfaceError::no_model(&id, &api.endpoints))?;
    Ok(HttpResponse::Ok().json(model(&api, endpoint)))
}

fn model(api: &Api, endpoint: &ServedEndpoint) -> Value {
    json!({
        "id": endpoint.id,
        "object": "model",
        "created": api.started_at.unix_seconds(),
        "owned_by": "stablehand",
    })
}
