//! `stablehand models rm`: removes a pulled model.

use clap::Args;

use super::Failure;
use crate::cli::print::print;
use crate::config::ModelsDirArgs;
use crate::hub::{HubCache, HubError, ModelsDir};
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
    let (name, bytes) = models.remove(&args.name).map_err(|error| in_cache(&args.name).unwrap_or(error))?;
    print(&format!("removed {name} ({})\n", size_text(bytes)))
}

/// The error for a model that is only in the cache of the hub's own programs.
fn in_cache(name: &str) -> Option<HubError> {
    let (name, path) = match HubCache::of_this_user()?.find(name) {
        Ok(found) => found.map(|cached| (cached.name, cached.path))?,
        Err(HubError::IncompleteCache { name, path, .. }) => (name, path),
        Err(_) => return None,
    };
    Some(HubError::Cached { name, path })
}
