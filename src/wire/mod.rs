//! What a job looks like from outside: the status body and the signed URLs in it.
//!
//! Knows the domain's values and nothing of HTTP or SQL, so that an answer and a webhook say the
//! same thing in the same words.

mod image_url;
mod json;
mod status_body;
mod watched;

pub use image_url::{ImageUrls, Opens, UrlSigner};
pub use json::JsonObject;
pub use status_body::status_body;
pub use watched::{end_of, picture_of, state_of, step_of};
