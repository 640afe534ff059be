//! HTTP over the queue: routes, keys and limits; request bodies in, answers out.
//!
//! - `native`: the API of the hosted endpoint, one file an operation.
//! - `openai`, `a1111`, `huggingface`, `mcp`: surfaces: other programs' APIs, which turn their requests into the same
//!   [`crate::domain::NewJob`].
//! - `surface`: what the surfaces have in common.
//! - `library`: the models on the disk, for the operator.
//! - `request`: what every request goes through, whatever it asks for: key, limits, body, errors, log line.
//! - `page`: the page to draw on, a client of the public API in the browser.
//! - `probes`: whether the server is alive and ready. `pulse` says the first without a connection.
//! - `docs`: what the server says about itself: the guide, the API reference and the OpenAPI document.
//!
//! `request` knows none of the others, and no surface knows another; `docs` reads what it describes from all. `routes` lists
//! every route once, for the server and for tests. Nothing here knows a worker or a model: a request meets its job in the
//! [`crate::queue`].

mod a1111;
mod docs;
mod huggingface;
mod library;
mod mcp;
mod metrics;
mod native;
mod openai;
mod page;
mod probes;
mod pulse;
mod request;
mod routes;
mod server;
mod surface;

pub use pulse::Pulse;
pub use request::{
    Api, ApiError, ApiKeys, BodyMemory, Endpoints, HttpSettings, Limit, Limiter, MemoryProbe, MemoryUse,
    MetricsAccess, OpenSurfaces, Operation, RateLimits, ServedEndpoint, Surface, Surfaces, TrustedProxies,
};
pub use server::{ServerLimits, serve};
