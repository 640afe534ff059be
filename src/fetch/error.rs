//! Why something outside could not be fetched, called or stored.

use std::io::ErrorKind;
use std::time::Duration;

use super::resolver::NotPublic;
use crate::domain::{WebUrl, WebUrlError};

/// What follows `init_image could not be fetched:` in a sentence. Clients see it, so it names the host that
/// they named, and nothing of what that resolves to or answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("it {0}")]
    Url(#[from] WebUrlError),
    #[error("the address of {host} is not public")]
    NotPublic { host: String },
    #[error("there is no host {host}")]
    NoHost { host: String },
    #[error("{host} cannot be reached")]
    Unreachable { host: String },
    #[error("{host} does not speak TLS with a certificate that can be trusted")]
    Untrusted { host: String },
    #[error("{host} did not answer within {}", humantime::format_duration(*limit))]
    TimedOut { host: String, limit: Duration },
    #[error("{host} answered with HTTP {status}")]
    Status { host: String, status: u16 },
    #[error("{host} answered with HTTP {status} ({code})")]
    Refused { host: String, status: u16, code: String },
    #[error("{host} redirects to a URL that {reason}")]
    Redirect { host: String, reason: WebUrlError },
    #[error("{host} redirects from https to http")]
    Downgrade { host: String },
    #[error("{host} redirects more than {limit} times")]
    TooManyRedirects { host: String, limit: usize },
    #[error("it is larger than {limit_mib} MiB")]
    TooLarge { limit_mib: u64 },
    #[error("the certificates in the file that SSL_CERT_FILE names cannot be read")]
    CertFile,
}

impl FetchError {
    /// Whether the same call may well succeed in a while.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::NoHost { .. } => true,
            Self::Status { status, .. } | Self::Refused { status, .. } => matches!(status, 429 | 500..),
            _ => false,
        }
    }

    /// What the client's error means for a call to `url` that might take `limit`.
    pub(super) fn of(error: ureq::Error, url: &WebUrl, limit: Duration) -> Self {
        let host = url.host().to_owned();
        match error {
            ureq::Error::Timeout(_) => Self::TimedOut { host, limit },
            ureq::Error::HostNotFound => Self::NoHost { host },
            ureq::Error::Other(inner) if inner.is::<NotPublic>() => Self::NotPublic { host },
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Self::Untrusted { host },
            // How a failed handshake comes out of rustls.
            ureq::Error::Io(error) if url.is_https() && error.kind() == ErrorKind::InvalidData => {
                Self::Untrusted { host }
            }
            error => {
                tracing::debug!(host, %error, "a call outside failed");
                Self::Unreachable { host }
            }
        }
    }
}
