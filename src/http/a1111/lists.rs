//! What is here, in A1111's words: models, samplers, upscalers, LoRAs, embeddings; and empty lists of what is not.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};

use super::sampler::{Sampler, Spacings};
use super::{A1111, checkpoint};
use crate::http::request::Api;
use crate::http::surface::Visitor;

/// Routes of lists that are empty. Some clients do not start without them.
pub const EMPTY: [&str; 7] = [
    "/sdapi/v1/sd-vae",
    "/sdapi/v1/prompt-styles",
    "/sdapi/v1/face-restorers",
    "/sdapi/v1/hypernetworks",
    "/sdapi/v1/realesrgan-models",
    "/sdapi/v1/script-info",
    "/sdapi/v1/extensions",
];
/// Routes that make A1111 look at its folders again. Here it is done by itself.
pub const REFRESHED: [&str; 4] = [
    "/sdapi/v1/refresh-checkpoints",
    "/sdapi/v1/refresh-vae",
    "/sdapi/v1/refresh-loras",
    "/sdapi/v1/refresh-embeddings",
];
/// The upscalers that need no model. The models of the server come behind them.
const UPSCALERS: [&str; 3] = ["None", "Lanczos", "Nearest"];
const LATENT_MODES: [&str; 6] = [
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
];
/// How much an upscaler enlarges if nothing says so, as A1111 lists those that take any factor.
const ANY_SCALE: u32 = 4;
/// The width of a textual inversion for Stable Diffusion v1.
const WIDTH: u32 = 768;

pub async fn models(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(api.endpoints.iter().map(checkpoint::row).collect::<Vec<_>>())
}

pub async fn samplers(_visitor: Visitor<A1111>) -> HttpResponse {
    let row = |(name, aliases)| json!({ "name": name, "aliases": aliases, "options": {} });
    HttpResponse::Ok().json(Sampler::here().map(row).collect::<Vec<_>>())
}

pub async fn schedulers(_visitor: Visitor<A1111>) -> HttpResponse {
    let row = |row: &Spacings| {
        let aliases = Some(row.aliases).filter(|aliases| !aliases.is_empty());
        json!({
            "name": row.name, "label": row.label, "aliases": aliases, "default_rho": -1, "need_inner_model": false,
        })
    };
    HttpResponse::Ok().json(Spacings::here().map(row).collect::<Vec<_>>())
}

pub async fn upscalers(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    let shelves: Vec<_> =
        api.endpoints.iter().filter_map(|endpoint| endpoint.rules.upscalers.clone()).collect();
    // It reads a folder.
    let models =
        web::block(move || shelves.iter().flat_map(|shelf| shelf.names()).collect::<BTreeSet<_>>()).await;
    let row = |name: String| json!({ "name": name, "model_name": null, "model_path": null, "model_url": null, "scale": ANY_SCALE });
    let all = UPSCALERS.map(str::to_owned).into_iter().chain(models.unwrap_or_default());
    HttpResponse::Ok().json(all.map(row).collect::<Vec<_>>())
}

pub async fn latent_upscale_modes(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(LATENT_MODES.map(|name| json!({ "name": name })))
}

pub async fn loras(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    let shelves: Vec<_> = api.endpoints.iter().filter_map(|endpoint| endpoint.rules.loras.clone()).collect();
    let names =
        web::block(move || shelves.iter().flat_map(|shelf| shelf.names()).collect::<BTreeSet<_>>()).await;
    // Its name stands for its path: where it lies is nobody's business.
    let row = |name: String| json!({ "name": name, "alias": name, "path": name, "metadata": {} });
    HttpResponse::Ok().json(names.unwrap_or_default().into_iter().map(row).collect::<Vec<_>>())
}

pub async fn embeddings(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    let prompts: Vec<_> =
        api.endpoints.iter().filter_map(|endpoint| endpoint.rules.prompts.clone()).collect();
    let words = web::block(move || {
        prompts.iter().flat_map(|prompts| prompts.learned_words()).collect::<BTreeMap<_, _>>()
    })
    .await;
    let row = |(name, vectors)| {
        let row = json!({
            "step": null, "sd_checkpoint": null, "sd_checkpoint_name": null, "shape": WIDTH, "vectors": vectors,
        });
        (name, row)
    };
    let loaded: Map<String, Value> = words.unwrap_or_default().into_iter().map(row).collect();
    HttpResponse::Ok().json(json!({ "loaded": loaded, "skipped": {} }))
}

/// Empty, so that clients send no blocks of extensions.
pub async fn scripts(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "txt2img": [], "img2img": [] }))
}

pub async fn empty(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(json!([]))
}

pub async fn refresh(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(())
}
