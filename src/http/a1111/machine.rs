//! The machine and its models: `GET /sdapi/v1/memory`, `POST /sdapi/v1/unload-checkpoint` and `/reload-checkpoint`, and
//! `/internal/ping`.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::A1111;
use crate::http::request::{Api, MemoryUse};
use crate::http::surface::Visitor;

pub async fn memory(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    let memory = api.memory;
    // It asks the system and the card's driver.
    let (ram, card) = web::block(move || ((memory.machine)(), (memory.card)())).await.unwrap_or_default();
    let unavailable = || json!({ "error": "unavailable" });
    let cuda = card.map_or_else(unavailable, |card| json!({ "system": bytes(card) }));
    HttpResponse::Ok().json(json!({ "ram": ram.map_or_else(unavailable, bytes), "cuda": cuda }))
}

fn bytes(MemoryUse { used, total }: MemoryUse) -> Value {
    json!({ "free": total.saturating_sub(used), "used": used, "total": total })
}

/// Gives the models' memory back as soon as they have no jobs. The next picture loads its model again.
pub async fn unload(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    for endpoint in api.endpoints.iter() {
        api.queue.unload(&endpoint.id);
    }
    HttpResponse::Ok().json(json!({}))
}

/// The next picture does it.
pub async fn reload(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(json!({}))
}

pub async fn ping() -> HttpResponse {
    HttpResponse::Ok().json(json!({}))
}
