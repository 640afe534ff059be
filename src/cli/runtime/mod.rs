//! `stablehand runtime`: the ONNX Runtime for NVIDIA cards, installed, listed, removed.

mod install;
mod list;
mod rm;

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::models::print;

#[derive(Debug, Args)]
pub struct RuntimeArgs {
    #[command(subcommand)]
    command: RuntimeCommand,
}

#[derive(Debug, Subcommand)]
enum RuntimeCommand {
    /// Download the runtime for NVIDIA cards
    #[command(long_about = install::ABOUT)]
    Install(install::InstallArgs),
    /// Show which runtimes there are and which one is used
    List(list::ListArgs),
    /// Remove an installed runtime
    Rm(rm::RmArgs),
}

/// The runtimes that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RuntimeKind {
    Cuda,
}

pub(super) fn runtime(args: &RuntimeArgs) -> Result<(), Failure> {
    match &args.command {
        RuntimeCommand::Install(args) => install::install(args),
        RuntimeCommand::List(args) => list::list(args),
        RuntimeCommand::Rm(args) => rm::rm(args),
    }
}
