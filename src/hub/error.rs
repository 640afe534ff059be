//! Why a model could not be pulled, found or removed, each as one sentence for the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::domain::WebUrlError;

/// URLs may hold keys, so of them the host alone is named.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Reference(String),
    /// It is there, and of no use here.
    #[error("{0}")]
    Refused(String),

    #[error("there is no host {host}: is this machine online? HF_ENDPOINT names another hub")]
    NoHost { host: String },
    #[error("{host} cannot be reached ({reason}): try again later; what has come so far is kept")]
    Unreachable { host: String, reason: String },
    #[error("{host} has sent nothing for {} s: try again later; what has come so far is kept", limit.as_secs())]
    TimedOut { host: String, limit: Duration },
    #[error("{host} does not speak TLS with a certificate that can be trusted; SSL_CERT_FILE names others")]
    Untrusted { host: String },
    #[error("{host} answered with HTTP {status} for {what}{}", if *status == 429 { ": it asks to be left alone for a while" } else { "" })]
    Status { host: String, status: u16, what: String, retry_after: Option<Duration> },
    #[error("{host} redirects to a URL that {reason}")]
    Redirect { host: String, reason: WebUrlError },
    #[error("{host} redirects from https to http")]
    Downgrade { host: String },
    #[error("{host} redirects more than {limit} times")]
    TooManyRedirects { host: String, limit: usize },
    #[error("{host} answered with what makes no sense for {what}: {reason}")]
    Answer { host: String, what: String, reason: String },

    #[error(
        "{host} lets nobody have {name} who has not accepted its licence: do so on {page}, and set HF_TOKEN to a token of that account"
    )]
    Gated { host: String, name: String, page: String },
    #[error("{host} knows no {name}, or shows it to its members alone: check the name on {page}{}", if *has_token { "; HF_TOKEN is set, and may be of another account" } else { ", or set HF_TOKEN to a token that may read it" })]
    Hidden { host: String, name: String, page: String, has_token: bool },
    #[error("{host} wants to know who asks for {what}: if its URL takes a key, as ?token=…, add it")]
    Forbidden { host: String, what: String },
    #[error("{host} has no {what}: check the name")]
    Missing { host: String, what: String },

    #[error("{host} serves {file} with {served} bytes where {stated} were stated: try again later")]
    Size { host: String, file: String, stated: u64, served: u64 },
    #[error(
        "{file} has another {kind} from {host} ({found}) than was stated ({stated}), and was not kept: try again later, or pull it from elsewhere"
    )]
    Checksum { host: String, file: String, kind: &'static str, stated: String, found: String },

    #[error("another stablehand is at work on {name}: wait until it is done, or stop it")]
    Busy { name: String },
    #[error(
        "{name} needs {needed} more in {dir}, whose disk has {free} left: make room, or name another folder with --models-dir"
    )]
    Room { name: String, dir: PathBuf, needed: String, free: String },
    #[error("the disk of {0} is full: make room and pull again; what has come so far is kept")]
    Full(PathBuf),
    #[error("cannot use {path}: {source}")]
    Disk { path: PathBuf, source: io::Error },

    #[error("no model '{name}' has been pulled: `stablehand models list` shows those there are")]
    NotPulled { name: String },
    #[error("'{name}' could be {}: write out which one", candidates.join(" or "))]
    Ambiguous { name: String, candidates: Vec<String> },
    #[error("{path} is not inside the models folder {dir}, so it is left alone")]
    Outside { path: PathBuf, dir: PathBuf },
}

impl HubError {
    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full(path.to_owned()),
            _ => Self::Disk { path: path.to_owned(), source },
        }
    }

    /// Whether the server may well answer otherwise in a moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Status { status: 408 | 429 | 500.., .. })
    }

    /// Whether it lies between us and the server: in the midst of a file worth another try, at the very
    /// beginning most likely a machine that is offline.
    pub(super) fn is_of_the_network(&self) -> bool {
        matches!(self, Self::NoHost { .. } | Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    /// How long the server wants not to be asked.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it is for the person to write something else.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Reference(_))
    }
}
