//! `stablehand mcp`: tools for a chat program that starts its tools itself, over standard input and output.
//!
//! `bridge` carries messages between the chat program and `/mcp` of a server: the one at `--url`, or one of its own, which
//! `own_server` runs in this process. `files` puts pictures in the place of their paths.

mod bridge;
mod files;
mod own_server;

use std::io;
use std::sync::Arc;

use clap::Args;

use self::bridge::Bridge;
use super::Failure;
use super::serve::start_log;
use crate::config::{ServeArgs, server_url};
use crate::fetch::root_certificates;
use crate::traces::Traces;

pub(super) const ABOUT: &str = "Give a chat program such as Claude Desktop or LM Studio tools that draw, over the Model \
Context Protocol on standard input and output. The chat program starts this command itself. With --url it uses a server \
that runs already; without, it draws in this process, with the settings of `stablehand serve` for models, devices and \
folders. The model is loaded for the first picture and leaves memory ten minutes after the last one.";

#[derive(Args)]
#[expect(clippy::doc_markdown, reason = "the help text is for a terminal")]
pub struct McpArgs {
    /// Address of a running server, such as http://127.0.0.1:8000 [default: draw in this process]
    #[arg(long, env = "STABLEHAND_URL", value_name = "URL", value_parser = server_url)]
    url: Option<String>,
    /// API key of that server; safer in the environment, because `ps` shows flags
    #[arg(long, env = "STABLEHAND_API_KEY", value_name = "KEY", hide_env_values = true)]
    key: Option<String>,
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// Serves until the chat program closes standard input. `settings` come from the flags, the environment and the
/// configuration file.
pub(super) fn mcp(url: Option<String>, key: Option<String>, settings: ServeArgs) -> Result<(), Failure> {
    let traces = start_log(&settings)?;
    let outcome = match url {
        Some(url) => {
            let roots = root_certificates().map_err(|error| Failure::Other(error.to_string()))?;
            Arc::new(Bridge::new(&url, key, roots)).carry(io::stdin().lock());
            Ok(())
        }
        None => own_server::run(settings),
    };
    traces.into_iter().for_each(Traces::finish);
    outcome
}

impl McpArgs {
    /// The running server to use, and its key.
    pub(super) fn server(&self) -> (Option<String>, Option<String>) {
        (self.url.clone(), self.key.clone())
    }
}
