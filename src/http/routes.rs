//! The route table: every route of the server, once.

use actix_web::web;

use super::request::{Methods, no_route, route};
use super::{docs, metrics, native};

/// All routes. Published clients mix `/v1` and `/v2`, so both lead to the same operations.
pub fn routes(config: &mut web::ServiceConfig) {
    docs::routes(config);
    config
        .service(route("/metrics", Methods::Get, metrics::metrics))
        .service(native::endpoint("/v1/{endpoint}"))
        .service(native::endpoint("/v2/{endpoint}"))
        .default_service(web::to(no_route));
}
