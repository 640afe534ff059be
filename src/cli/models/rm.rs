//! `stablehand models rm`: what has been pulled, gone.

use clap::Args;

use super::{Failure, print};
use crate::config::ModelsDirArgs;
use crate::hub::{ModelsDir, size_text};

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// A pulled model, by its name or path, or an unfinished one by its name
    name: String,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn rm(args: &RmArgs) -> Result<(), Failure> {
    let models = ModelsDir::new(args.folders.models_dir()?);
    let (name, bytes) = models.remove(&args.name)?;
    print(&format!("{name} is gone: {} are free\n", size_text(bytes)))
}
