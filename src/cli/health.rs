//! `stablehand health`: whether a server is alive or ready, for container health checks and scripts. It needs no curl and
//! no key.

use std::time::Duration;

use clap::Args;

use super::Failure;
use super::print::print;
use super::remote::AddressArgs;
use crate::config::time;

pub(super) const ABOUT: &str = "Ask a running server whether it is ready: whether it accepts jobs and draws them. The exit \
code is 0 if it is, and 1 if it is not or cannot be reached. It needs no API key.";

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    address: AddressArgs,
    /// Ask only whether it is alive; models may still be loading
    #[arg(long, conflicts_with = "max_wait")]
    live: bool,
    /// Longest time that a new job may have to wait, such as 30s
    #[arg(long, value_name = "TIME", value_parser = time)]
    max_wait: Option<Duration>,
}

/// Prints the answer, and returns whether it is yes.
pub(super) fn health(args: &HealthArgs) -> Result<bool, Failure> {
    let server = args.address.server()?;
    let (path, word) = match (args.live, args.max_wait) {
        (true, _) => ("/live".to_owned(), "alive"),
        (false, None) => ("/ready".to_owned(), "ready"),
        (false, Some(wait)) => (format!("/ready?max_wait={}ms", wait.as_millis()), "ready"),
    };
    let (status, body) = server.get(&path)?;
    let base = server.base();
    match (status, body["ok"].as_bool()) {
        (200, Some(true)) => print(&format!("{base} is {word}\n")).map(|()| true),
        (503, Some(false)) => print(&format!("{base} is not {word}\n")).map(|()| false),
        _ => Err(Failure::Other(format!("{base} is no stablehand: it answered with status {status}"))),
    }
}
