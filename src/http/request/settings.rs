//! The operator's settings for HTTP.

use super::{OpenSurfaces, RateLimits, Surfaces, TrustedProxies};
use crate::domain::Node;

#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The proxies whose word about their clients counts.
    pub trusted_proxies: TrustedProxies,
    /// Bytes for the bodies of requests that arrive at the same time.
    pub body_memory: u64,
    /// Which of several servers this is.
    pub node: Option<Node>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            rate_limits: RateLimits::default(),
            metrics: MetricsAccess::default(),
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            surfaces: Surfaces::default(),
            open_surfaces: OpenSurfaces::default(),
            trusted_proxies: TrustedProxies::default(),
            body_memory: 256 << 20,
            node: None,
        }
    }
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
