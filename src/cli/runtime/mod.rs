//! `stablehand runtime`: installs, lists and removes the ONNX Runtime for NVIDIA cards.

mod install;
mod list;
mod rm;

use clap::{Args, Subcommand, ValueEnum};

use super::Failure;
use super::print::print;
use crate::config::ModelsDirArgs;
use crate::runtime::{DeviceChoice, RuntimesDir, use_installed};

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

/// Lets a command without a server load an installed runtime for `device`.
pub(super) fn use_installed_runtimes(folders: &ModelsDirArgs, device: DeviceChoice) {
    // A user without a data folder has no installed runtime.
    if let Ok(data_dir) = folders.data_dir() {
        use_installed(RuntimesDir::in_data_dir(&data_dir), [device]);
    }
}
