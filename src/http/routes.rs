//! The route table: every route of the server, once.

use actix_web::guard::{self, GuardContext};
use actix_web::web;

use super::request::{Api, Methods, Surface, Surfaces, no_route, route};
use super::{a1111, docs, huggingface, library, mcp, metrics, native, openai, page, probes};

/// What surfaces and the documentation remember between requests. All threads of the server share it.
#[derive(Clone)]
pub struct SurfaceStates {
    docs: web::Data<docs::State>,
    a1111: web::Data<a1111::State>,
    mcp: web::Data<mcp::Exchange>,
}

impl SurfaceStates {
    pub fn new(api: &web::Data<Api>) -> Self {
        let mcp = web::Data::new(mcp::Exchange::new(api.clone()));
        Self { docs: web::Data::default(), a1111: web::Data::default(), mcp }
    }
}

const VERSIONS: [&str; 2] = ["/v1/{endpoint}", "/v2/{endpoint}"];

/// All routes. Published clients mix `/v1` and `/v2`, so both lead to the same operations. The first that matches wins, and
/// those before it are compared in vain. So the operations of endpoints that are here come first: no endpoint has the name
/// of a fixed route. The fixed routes of surfaces and of the library come before endpoints that are not here.
pub fn routes(config: &mut web::ServiceConfig, surfaces: &Surfaces, states: &SurfaceStates) {
    for version in VERSIONS {
        config.service(native::endpoint(version).guard(guard::fn_guard(names_an_endpoint)));
    }
    page::routes(config);
    docs::routes(config, &states.docs);
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
    for version in VERSIONS {
        config.service(native::endpoint(version));
    }
    config.default_service(web::to(no_route));
}

/// Whether a path is below that of an endpoint of this server, such as `/v2/stable-diffusion-v1/run`.
fn names_an_endpoint(context: &GuardContext<'_>) -> bool {
    let mut segments = context.head().uri.path().split('/').skip(2);
    let (Some(name), Some(_), Some(api)) =
        (segments.next(), segments.next(), context.app_data::<web::Data<Api>>())
    else {
        return false;
    };
    api.endpoints.iter().any(|endpoint| endpoint.id.as_str() == name)
}
