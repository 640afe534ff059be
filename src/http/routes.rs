//! The route table: every route of the server, once.

use actix_web::web;

use super::request::{Methods, Surface, Surfaces, no_route, route};
use super::{docs, huggingface, metrics, native, openai, page, surface};

/// All routes. Published clients mix `/v1` and `/v2`, so both lead to the same operations. The fixed routes of surfaces
/// come before `/v1/{endpoint}`: the first that matches wins.
pub fn routes(config: &mut web::ServiceConfig, surfaces: &Surfaces) {
    page::routes(config);
    docs::routes(config);
    config.service(route("/metrics", Methods::Get, metrics::metrics));
    for surface in surfaces.iter() {
        match surface {
            Surface::OpenAi => openai::routes(config),
            Surface::HuggingFace => huggingface::routes(config),
        }
    }
    surface::files::routes(config);
    config
        .service(native::endpoint("/v1/{endpoint}"))
        .service(native::endpoint("/v2/{endpoint}"))
        .default_service(web::to(no_route));
}
