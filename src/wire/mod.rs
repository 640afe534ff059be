//! How the outside sees a job: the status body, the events, and the signed URLs in them.
//!
//! HTTP answers and webhooks both use this, so that they say the same in the same words. It knows the domain's
//! values, and nothing of HTTP or SQL.

mod events;
mod json;
mod status_body;
mod urls;

pub use events::{JobEvent, end_json, image_json, progress_json, status_json};
pub use json::JsonObject;
pub use status_body::status_body;
pub use urls::{JobUrls, SignedResource, UrlSigner};
