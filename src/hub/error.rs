//! Why a model could not be pulled, found or removed. Each error is one sentence for the operator.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::redirects::RedirectError;

/// URLs may hold keys, so an error names only their host.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The command or a setting has a wrong value.
    #[error("{0}")]
    Reference(String),
    /// The model exists, but stablehand cannot use it.
    #[error("{0}")]
    Refused(String),

    #[error("the address of {host} is not public: the operator can allow it with --allow-addresses")]
    NotPublic { host: String },
    #[error("there is no host {host}: check the network and HF_ENDPOINT")]
    NoHost { host: String },
    #[error("cannot reach {host} ({reason}): try again later; what can be resumed is kept")]
    Unreachable { host: String, reason: String },
    #[error("{host} has sent nothing for {} s: try again later; what can be resumed is kept", limit.as_secs())]
    TimedOut { host: String, limit: Duration },
    #[error(
        "cannot trust the TLS certificate of {host}: if it is from a private authority, set SSL_CERT_FILE"
    )]
    Untrusted { host: String },
    #[error("{host} answered with HTTP {status} for {what}{}", if *status == 429 { ": there were too many requests, so try again later" } else { "" })]
    Status { host: String, status: u16, what: String, retry_after: Option<Duration> },
    #[error(transparent)]
    Redirect(#[from] RedirectError),
    #[error("{host} sent an invalid answer for {what}: {reason}")]
    Answer { host: String, what: String, reason: String },

    #[error("{name} is gated: accept its licence at {page}, then set HF_TOKEN to a token of that account")]
    Gated { name: String, page: String },
    #[error("{host} has no {name}, or it is private: check the name at {page}{}", if *has_token { "; HF_TOKEN is set, but its account may have no access" } else { ", or set HF_TOKEN to a token that can read it" })]
    Hidden { host: String, name: String, page: String, has_token: bool },
    #[error("{host} refuses access to {what}: {}", if *has_token { "check the token in STABLEHAND_DOWNLOAD_TOKEN, and whether its account may download this" } else { "set STABLEHAND_DOWNLOAD_TOKEN to a token of that site, or add its key to the URL, such as ?token=…" })]
    Forbidden { host: String, what: String, has_token: bool },
    /// A URL of the hub that is no page of a model, such as a file of a data set.
    #[error("{host} refuses access to {what}: {}", if *has_token { "HF_TOKEN is set, but its account may have no access" } else { "set HF_TOKEN to a token that can read it" })]
    ForbiddenByHub { host: String, what: String, has_token: bool },
    #[error("{host} has no {what}: check the name")]
    Missing { host: String, what: String },

    #[error("{host} sends {file} with {served} bytes instead of {stated}: try again later")]
    Size { host: String, file: String, stated: u64, served: u64 },
    #[error(
        "the {kind} of {file} from {host} is {found}, not {stated}, so the file was not kept: try again later, or pull it from elsewhere"
    )]
    Checksum { host: String, file: String, kind: &'static str, stated: String, found: String },

    #[error("it was cancelled; what can be resumed is kept")]
    Cancelled,
    #[error("another stablehand process is working on {name}: wait until it is done, or stop it")]
    Busy { name: String },
    #[error(
        "{name} needs {needed} more in {dir}, but the disk has only {free} free: free some space, or choose another folder with --models-dir"
    )]
    NoSpace { name: String, dir: PathBuf, needed: String, free: String },
    #[error("the disk of {0} is full: free some space and pull again; what can be resumed is kept")]
    DiskFull(PathBuf),
    #[error("cannot use {path}: {source}")]
    Disk { path: PathBuf, source: io::Error },

    #[error("no model '{name}' has been pulled{}: `stablehand models list` shows the pulled models", did_you_mean(similar.as_deref()))]
    NotPulled { name: String, similar: Option<String> },
    #[error(
        "{name} is in the cache of the hub's own programs, at {path}: other programs use it too, so it was not removed; \
         `hf cache rm` or deleting that folder removes it"
    )]
    Cached { name: String, path: PathBuf },
    #[error(
        "{name} in the cache of the hub's own programs, at {path}, is not complete ({problem}): let the program that \
         downloaded it do that again, or use `stablehand models pull {name}`"
    )]
    IncompleteCache { name: String, path: PathBuf, problem: String },
    #[error("'{name}' may mean {}: write the full name", candidates.join(" or "))]
    Ambiguous { name: String, candidates: Vec<String> },
    #[error("{path} is not inside the models folder {dir}, so it was not removed")]
    Outside { path: PathBuf, dir: PathBuf },
}

/// The end of a clause about a name that does not exist.
fn did_you_mean(similar: Option<&str>) -> String {
    similar.map(|similar| format!(" (did you mean {similar}?)")).unwrap_or_default()
}

impl HubError {
    pub(super) fn disk(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull(path.to_owned()),
            _ => Self::Disk { path: path.to_owned(), source },
        }
    }

    /// Whether the server may answer differently in a moment.
    pub(super) fn is_temporary(&self) -> bool {
        matches!(self, Self::Status { status: 408 | 429 | 500.., .. })
    }

    /// Whether the network failed. In the middle of a file another try makes sense; at the very beginning this
    /// machine is most likely offline.
    pub(super) fn is_network_failure(&self) -> bool {
        matches!(self, Self::NoHost { .. } | Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    /// How long the server asks to wait before the next request.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the operator has to change the command.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Reference(_))
    }
}
