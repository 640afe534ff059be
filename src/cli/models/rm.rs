//! `stablehand models rm`: removes a pulled model.

use clap::Args;

use super::Failure;
use crate::cli::print::print;
use crate::config::ModelsDirArgs;
use crate::hub::ModelsDir;
use crate::size_text::size_text;

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Name or path of a pulled model, or name of an unfinished pull
    name: String,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn rm(args: &RmArgs) -> Result<(), Failure> {
    let models = ModelsDir::new(args.folders.models_dir()?);
    let (name, bytes) = models.remove(&args.name)?;
    print(&format!("removed {name} ({})\n", size_text(bytes)))
}
