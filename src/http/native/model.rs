//! `GET /model`: what the endpoint's model takes, and the LoRAs and textual inversions that are there.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use crate::domain::{GenerationInput, InputRules, Preprocessor, Sampling, SchedulerKind, Spacing, Upscaler};
use crate::http::request::{Api, ApiError, Endpoint};

pub async fn model(api: web::Data<Api>, endpoint: Endpoint) -> Result<HttpResponse, ApiError> {
    let name = api.endpoints.get(&endpoint.id).ok_or(ApiError::NO_ENDPOINT)?.model.clone();
    let rules = endpoint.rules;
    // It may look at folders.
    let body = web::block(move || describe(&name, &rules)).await.map_err(|error| {
        tracing::error!(%error, "looking at a model failed");
        ApiError::Internal
    })?;
    Ok(HttpResponse::Ok().json(body))
}

fn describe(name: &str, rules: &InputRules) -> Value {
    let fields: Vec<&str> = GenerationInput::FIELDS.into_iter().filter(|field| rules.takes(field)).collect();
    let words = rules.prompts.as_ref().map(|prompts| prompts.learned_words()).unwrap_or_default();
    let mut words: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    words.sort_unstable();
    let required: &[&str] = if rules.edits_images { &["prompt", "init_image"] } else { &["prompt"] };
    json!({
        "name": name,
        "fields": fields,
        "required": required,
        "defaults": defaults(rules),
        "schedulers": SchedulerKind::ALL.map(scheduler),
        "grid": rules.grid,
        "max_clip_skip": rules.max_clip_skip.max(1),
        "loras": rules.loras.as_ref().map(|shelf| shelf.names()).unwrap_or_default(),
        "embeddings": words,
        "controlnets": rules.controlnets.as_ref().map(|shelf| shelf.names()).unwrap_or_default(),
        "preprocessors": Preprocessor::ALL.map(Preprocessor::as_str),
        "built_in_upscalers": built_in_upscalers(rules),
        "upscalers": rules.upscalers.as_ref().map(|shelf| shelf.names()).unwrap_or_default(),
    })
}

/// Without the VAE encoder, no pixels become latents again.
fn built_in_upscalers(rules: &InputRules) -> Vec<&'static str> {
    let is_latent = |name: &str| Upscaler::parse(name, None).is_ok_and(|upscaler| upscaler.is_latent());
    Upscaler::built_in().filter(|name| rules.takes_images || is_latent(name)).collect()
}

fn scheduler(kind: SchedulerKind) -> Value {
    let spacings = Spacing::ALL.into_iter().filter(|spacing| kind.takes(*spacing)).map(Spacing::as_str);
    json!({
        "name": kind.as_str(),
        "title": kind.a1111_name(),
        "from_image": kind.starts_from_image(),
        "spacings": spacings.collect::<Vec<_>>(),
        "options": Sampling::FIELDS.into_iter().filter(|name| kind.has_option(name)).collect::<Vec<_>>(),
    })
}

/// The fields of a request that says only what it must.
fn defaults(rules: &InputRules) -> Value {
    let mut least = json!({ "prompt": "" });
    if rules.edits_images {
        least["init_image"] = json!("https://example.org/");
    }
    let Ok(input) = GenerationInput::parse(&least, rules) else { return json!({}) };
    let mut defaults = input.request_for(0, 0);
    if let Some(fields) = defaults.as_object_mut() {
        // Requests are written without what gives something up, unless they ask for it.
        let whole = [
            ("cache_interval", json!(input.cache_interval)),
            ("precision", json!(input.precision.as_str())),
            ("vae", json!(input.vae.as_str())),
        ];
        fields.extend(
            whole
                .into_iter()
                .filter(|(name, _)| rules.takes(name))
                .map(|(name, value)| (name.to_owned(), value)),
        );
        // What has no default, or another one each time.
        fields.retain(|name, value| {
            !value.is_null() && !["prompt", "negative_prompt", "seed"].contains(&name.as_str())
        });
    }
    defaults
}
