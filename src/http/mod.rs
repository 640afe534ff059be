//! HTTP over the queue: routes, keys and limits; request bodies in, answers out.
//!
//! - `native`: the API of the hosted endpoint, one file an operation. Another API (a "surface") gets a folder
//!   of its own beside it and turns its requests into the same [`crate::domain::NewJob`].
//! - `request`: what every request goes through, whatever it asks for: key, limits, body, errors, log line.
//! - `docs`: what the server says about itself: the guide, the API reference and the OpenAPI document.
//!
//! `request` knows neither of the others; `docs` reads what it describes from both. `routes` lists every route
//! once, for the server and for tests. Nothing here knows a worker or a model: a request meets its job in
//! the [`crate::queue`].

mod docs;
mod metrics;
mod native;
mod request;
mod routes;
mod server;
mod settings;

pub use request::{Api, ApiError, ApiKeys, Limit, Limiter, Operation, RateLimits};
pub use routes::routes;
pub use server::{ServerLimits, serve};
pub use settings::{HttpSettings, MetricsAccess};
