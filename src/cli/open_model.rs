//! Decides which model `--model` means. All commands that take a model share this.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::ConfigError;
use crate::diffusion::{AddOnFolders, Model};
use crate::hub::{HubCache, ModelsDir, similar};

/// The name of the model inside the binary.
const BUILT_IN: &str = "tiny-sd";

/// Opens the model that `--model` means: the file or folder at this path, otherwise the pulled model of this name, otherwise
/// the one that was copied into the folder of models, otherwise the model of this name in the cache of the hub's own
/// programs. Without `--model`, or by its name, it is the built-in model.
/// `models_dir` is called only for a name.
pub(super) fn open_model(
    model: Option<&Path>,
    add_ons: Option<AddOnFolders>,
    models_dir: impl FnOnce() -> Result<PathBuf, ConfigError>,
) -> Result<Model, Failure> {
    let name = model.filter(|path| !path.exists() && could_be_a_name(path)).and_then(Path::to_str);
    let Some(name) = name else { return Ok(Model::open(model, add_ons)?) };
    let (models, cache) = (ModelsDir::new(models_dir()?), HubCache::of_this_user());
    let own = match models.find(name)? {
        Some(pulled) => Some(pulled.path()),
        None => models.find_copied(name).map(|copied| copied.path),
    };
    let path = match (own, &cache) {
        (Some(path), _) => path,
        (None, Some(cache)) => match cache.find(name)? {
            Some(cached) => cached.path,
            None if name == BUILT_IN => return Ok(Model::open(None, add_ons)?),
            None => return Err(Failure::Other(unknown(name, &models, Some(cache)))),
        },
        (None, None) if name == BUILT_IN => return Ok(Model::open(None, add_ons)?),
        (None, None) => return Err(Failure::Other(unknown(name, &models, None))),
    };
    Ok(Model::open(Some(&path), add_ons)?)
}

fn unknown(name: &str, models: &ModelsDir, cache: Option<&HubCache>) -> String {
    let pulled = models.list().unwrap_or_default().into_iter().map(|model| model.manifest.name);
    let copied = models.copied().into_iter().map(|model| model.name);
    let cached = cache.map(HubCache::list).unwrap_or_default().into_iter().map(|model| model.name);
    let names: Vec<String> = pulled.chain(copied).chain(cached).collect();
    let meant = match similar(name, names.iter().map(String::as_str)) {
        Some(similar) => format!(" (did you mean {similar}?)"),
        None => String::new(),
    };
    let pull = match name.contains('/') {
        true => format!(", `stablehand models pull {name}` may download it"),
        false => String::new(),
    };
    format!(
        "there is no model {name}, neither as a file or folder nor as a pulled model{meant}: `stablehand models list` shows \
         the pulled models{pull}"
    )
}

/// Whether the text may be the name of a pulled model, because it does not look like a path.
fn could_be_a_name(path: &Path) -> bool {
    path.is_relative() && !path.starts_with(".") && !path.starts_with("..") && !path.starts_with("~")
}
