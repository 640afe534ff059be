//! The operator's settings for HTTP.

use super::{OpenSurfaces, RateLimits, Surfaces};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSettings {
    pub rate_limits: RateLimits,
    pub metrics: MetricsAccess,
    /// Origins whose pages may read answers in a browser, such as `https://pictures.example`; `*` is every origin.
    pub cors_origins: Vec<String>,
    /// Host names of this server besides local ones and that of its public URL.
    pub hosts: Vec<String>,
    /// The surfaces that are served.
    pub surfaces: Surfaces,
    /// The surfaces that need no key.
    pub open_surfaces: OpenSurfaces,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsAccess {
    /// Clients with an API key, as everywhere else.
    #[default]
    Key,
    /// Everyone. For networks that keep strangers out.
    Open,
}
