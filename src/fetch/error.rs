//! Why a call to another server failed.

use std::io::ErrorKind;
use std::time::Duration;

use super::resolver::is_refusal;
use crate::domain::{WebUrl, WebUrlError};
use crate::redirects::RedirectError;

/// The rest of a sentence such as `init_image could not be fetched: …`. Clients see it, so it names only the host from
/// their URL: no IP address, and no text from the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("it {0}")]
    Url(#[from] WebUrlError),
    #[error("the address of {host} is not public; the server's operator can allow it with --allow-addresses")]
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
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    #[error("it is larger than {limit_mib} MiB")]
    TooLarge { limit_mib: u64 },
    #[error("cannot read certificates from the file that SSL_CERT_FILE names")]
    CertFile,
}

impl FetchError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::NoHost { .. } => true,
            Self::Status { status, .. } | Self::Refused { status, .. } => matches!(status, 429 | 500..),
            _ => false,
        }
    }

    /// The error for a failed call to `url` whose time limit was `limit`.
    pub(super) fn from_call(error: ureq::Error, url: &WebUrl, limit: Duration) -> Self {
        let host = url.host().to_owned();
        match error {
            ureq::Error::Timeout(_) => Self::TimedOut { host, limit },
            ureq::Error::HostNotFound => Self::NoHost { host },
            error if is_refusal(&error) => Self::NotPublic { host },
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) => Self::Untrusted { host },
            // rustls reports a failed handshake like this.
            ureq::Error::Io(error) if url.is_https() && error.kind() == ErrorKind::InvalidData => {
                Self::Untrusted { host }
            }
            error => {
                tracing::debug!(host, %error, "outgoing call failed");
                Self::Unreachable { host }
            }
        }
    }
}
