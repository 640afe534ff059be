//! The hosted service's API over the queue: routes, keys, bodies in, status bodies out.
//!
//! `routes` lists every route once, for the server and its tests alike. Each operation has a file
//! of its own; all of them say no through [`ApiError`]. Nothing here knows a worker or a model:
//! a request meets its job in the [`crate::queue`].

mod api;
mod auth;
mod body;
mod cancel;
mod docs;
mod error;
mod events;
mod health;
mod idempotency;
mod image;
mod index;
mod limits;
mod metrics;
mod observe;
mod openapi;
mod operation;
mod path;
mod purge_queue;
mod request_id;
mod requests;
mod retry;
mod routes;
mod run;
mod runsync;
mod server;
mod settings;
mod signed_query;
mod status;
mod status_sync;
mod stream;
mod submission;
mod wait;

pub use api::Api;
pub use auth::{ApiKey, ApiKeys};
pub use error::ApiError;
pub use limits::{Limit, Limiter, RateLimits, Turn};
pub use operation::Operation;
pub use path::{Endpoint, JobPath};
pub use routes::routes;
pub use server::{ServerLimits, serve};
pub use settings::{HttpSettings, MetricsAccess};
pub use wait::Wait;

/// A 200 whose body is JSON text already.
fn json_text(body: String) -> actix_web::HttpResponse {
    actix_web::HttpResponse::Ok().content_type(actix_web::http::header::ContentType::json()).body(body)
}
