//! `stablehand runtime rm`: removes an installed runtime.

use clap::Args;

use super::{Failure, RuntimeKind, print};
use crate::config::DataDirArgs;
use crate::runtime::RuntimesDir;
use crate::size_text::size_text;

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Which runtime
    runtime: RuntimeKind,
    #[command(flatten)]
    folder: DataDirArgs,
}

pub(super) fn rm(args: &RmArgs) -> Result<(), Failure> {
    let RuntimeKind::Cuda = args.runtime;
    let runtimes = RuntimesDir::in_data_dir(&args.folder.data_dir()?);
    let removed = runtimes.remove_cuda().map_err(|error| {
        Failure::Other(format!("cannot remove the CUDA runtime in {}: {error}", runtimes.path().display()))
    })?;
    match removed {
        Some(bytes) => print(&format!("the CUDA runtime is removed: {} are free\n", size_text(bytes))),
        None => Err(Failure::Other(format!("no CUDA runtime is installed in {}", runtimes.path().display()))),
    }
}
