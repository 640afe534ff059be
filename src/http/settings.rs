//! What an operator may set of the HTTP side.

use super::limits::RateLimits;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpSettings {
    pub rate_limits: RateLimits,
    pub metrics: MetricsAccess,
    /// Origins whose pages may read answers in a browser, such as `https://pictures.example`; `*` is
    /// every one.
    pub cors_origins: Vec<String>,
}

/// Who may read `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MetricsAccess {
    /// Who has an API key, as for everything else.
    #[default]
    Key,
    /// Everybody, where the network keeps strangers out.
    Open,
}
