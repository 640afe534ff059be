//! `POST /sdapi/v1/interrupt` and `/skip`: stop the request that is being drawn, or its current batch. That request is
//! still answered, with what is drawn so far. Jobs of other APIs go on.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{A1111, State};
use crate::http::request::Api;
use crate::http::surface::Visitor;

pub async fn interrupt(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
) -> HttpResponse {
    stop(&api, &state, true).await;
    HttpResponse::Ok().json(json!({}))
}

pub async fn skip(api: web::Data<Api>, state: web::Data<State>, _visitor: Visitor<A1111>) -> HttpResponse {
    stop(&api, &state, false).await;
    HttpResponse::Ok().json(())
}

async fn stop(api: &Api, state: &State, whole: bool) {
    if let Some((task, _)) = state.tasks.shown(&api.queue) {
        task.stop(&api.queue, whole).await;
    }
}
