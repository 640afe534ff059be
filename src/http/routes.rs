//! The route table: every route of the server, once.

use actix_web::web;

use super::request::{Api, Methods, Surface, Surfaces, no_route, route};
use super::{a1111, docs, huggingface, library, mcp, metrics, native, openai, page, probes, surface};

/// What surfaces remember between requests. All threads of the server share it.
#[derive(Clone)]
pub struct SurfaceStates {
    a1111: web::Data<a1111::State>,
    mcp: web::Data<mcp::Exchange>,
}

impl SurfaceStates {
    pub fn new(api: &web::Data<Api>) -> Self {
        Self { a1111: web::Data::default(), mcp: web::Data::new(mcp::Exchange::new(api.clone())) }
    }
}

/// All routes. Published clients mix `/v1` and `/v2`, so both lead to the same operations. The fixed routes of
/// surfaces and of the library come before `/v1/{endpoint}`: the first that matches wins.
pub fn routes(config: &mut web::ServiceConfig, surfaces: &Surfaces, states: &SurfaceStates) {
    page::routes(config);
    docs::routes(config);
    probes::routes(config);
    config.service(route("/metrics", Methods::Get, metrics::metrics));
    for surface in surfaces.iter() {
        match surface {
            Surface::OpenAi => openai::routes(config),
            Surface::HuggingFace => huggingface::routes(config),
            Surface::A1111 => a1111::routes(config, &states.a1111),
            Surface::Mcp => mcp::routes(config, &states.mcp),
        }
    }
    library::routes(config);
    surface::files::routes(config);
    config
        .service(native::endpoint("/v1/{endpoint}"))
        .service(native::endpoint("/v2/{endpoint}"))
        .default_service(web::to(no_route));
}
