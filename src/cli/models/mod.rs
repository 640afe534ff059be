//! `stablehand models`: pulls, lists, checks, converts and removes models.

mod check;
mod convert;
mod list;
pub(super) mod pull;
mod rm;

use clap::{Args, Subcommand};

use super::Failure;

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a model from a hub or a URL
    #[command(long_about = pull::ABOUT)]
    Pull(pull::PullArgs),
    /// List the pulled models, with their names and paths for --model
    List(list::ListArgs),
    /// Remove a pulled model
    Rm(rm::RmArgs),
    /// Show what a model contains and test whether it can draw
    #[command(long_about = check::ABOUT)]
    Check(check::CheckArgs),
    /// Write weights in one file as .safetensors
    #[command(long_about = convert::ABOUT)]
    Convert(convert::ConvertArgs),
}

/// Whether it went well. Where it did not and there is no failure, the command itself has said why.
pub(super) fn models(args: &ModelsArgs) -> Result<bool, Failure> {
    match &args.command {
        ModelsCommand::Pull(args) => pull::pull(args).map(|()| true),
        ModelsCommand::List(args) => list::list(args).map(|()| true),
        ModelsCommand::Rm(args) => rm::rm(args).map(|()| true),
        ModelsCommand::Check(args) => check::check(args),
        ModelsCommand::Convert(args) => convert::convert(args).map(|()| true),
    }
}
