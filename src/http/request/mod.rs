//! What every request goes through, whatever it asks for.
//!
//! `observe` wraps all of it; the extractors `ApiKey`, `Endpoint` and `JobPath` let a request in or refuse it; every
//! refusal is an [`ApiError`]. The bodies of other answers belong to the folder of each API.

mod api;
mod auth;
pub(super) mod body;
mod browser;
mod compressed;
mod connection;
mod endpoints;
mod error;
mod freed_memory;
pub(super) mod idempotency;
mod json;
mod keyless;
mod limits;
mod observe;
mod operation;
mod path;
mod proxies;
mod request_id;
mod route;
mod settings;
mod signed_query;
mod surfaces;
mod trace;

pub use api::{Api, MemoryProbe, MemoryUse};
pub use auth::{ApiKey, ApiKeys};
pub use body::BodyMemory;
pub use connection::{Patience, Stream, Visitors};
pub use endpoints::{Endpoints, ServedEndpoint};
pub use error::ApiError;
pub use limits::{Caller, InFlight, Limit, Limiter, RateLimits};
pub use operation::Operation;
pub use path::{Endpoint, JobPath};
pub use proxies::TrustedProxies;
pub use settings::{HttpSettings, MetricsAccess};
pub use surfaces::{OpenSurfaces, Surface, Surfaces};

pub(super) use browser::check_site;
pub(super) use compressed::Compressed;
pub(super) use connection::Connection;
pub(super) use json::{has_few_values, is_quickly_read};
pub(super) use keyless::Keyless;
pub(super) use observe::observe;
pub(super) use path::enter;
pub(super) use route::{Methods, RouteName, no_route, route, route_below};
pub(super) use signed_query::{SignedQuery, canonical};
pub(super) use trace::parent as request_trace;
