//! `list_models`: what there is to draw with.

use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::domain::SchedulerKind;
use crate::http::request::{Endpoints, ServedEndpoint};

/// Looks into the folder of LoRAs, which blocks.
pub fn list(endpoints: &Endpoints) -> CallToolResult {
    let default = endpoints.default_one().map(|endpoint| &endpoint.id);
    let model = |endpoint: &ServedEndpoint| -> Value {
        let rules = &endpoint.rules;
        json!({
            "id": endpoint.id,
            "name": endpoint.model,
            "is_default": Some(&endpoint.id) == default,
            "edits_images": rules.takes_images || rules.edits_images,
            "scheduler": rules.scheduler.as_str(),
            "loras": rules.loras.as_ref().map(|shelf| shelf.names()).unwrap_or_default(),
        })
    };
    let models: Vec<Value> = endpoints.iter().map(model).collect();
    CallToolResult::structured(json!({
        "models": models,
        "schedulers": SchedulerKind::ALL.map(SchedulerKind::as_str),
    }))
}
