//! Why the server could not start, or had to end.

use std::io;
use std::net::SocketAddr;

use crate::fetch::FetchError;
use crate::queue::QueueError;
use crate::secrets::SecretError;

/// Each is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot use the data folder {path}: {reason}")]
    DataDir { path: String, reason: String },
    #[error("cannot open the job database in {path}: {source}")]
    Queue { path: String, source: QueueError },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot make calls to other hosts: {0}")]
    Fetch(#[from] FetchError),
    #[error("{address} is in use by another program: stop it, or choose another port with {flag}")]
    PortInUse { address: SocketAddr, flag: &'static str },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(
        "this process may have only {limit} files open at once, and the server needs {least}: raise the limit (`ulimit -n`, or \
         LimitNOFILE= of a service)"
    )]
    OpenFiles { limit: u64, least: u64 },
    #[error("{0}")]
    Worker(String),
    #[error("the server failed: {0}")]
    Server(#[from] io::Error),
}
