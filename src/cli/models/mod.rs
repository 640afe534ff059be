//! `stablehand models`: pulls, lists, checks and removes models.

mod check;
mod list;
mod pull;
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
}

pub(super) fn models(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        ModelsCommand::Pull(args) => pull::pull(args),
        ModelsCommand::List(args) => list::list(args),
        ModelsCommand::Rm(args) => rm::rm(args),
        ModelsCommand::Check(args) => check::check(args),
    }
}
