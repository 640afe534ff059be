//! Decides which model `--model` means. All commands that take a model share this.

use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::ConfigError;
use crate::diffusion::{AddOnFolders, Model};
use crate::hub::ModelsDir;

/// Opens the model that `--model` means: the file or folder at this path, otherwise the pulled model of this name.
/// Without `--model` it is the built-in model. `models_dir` is called only for a name.
pub(super) fn open_model(
    model: Option<&Path>,
    add_ons: Option<AddOnFolders>,
    models_dir: impl FnOnce() -> Result<PathBuf, ConfigError>,
) -> Result<Model, Failure> {
    let name = model.filter(|path| !path.exists() && could_be_a_name(path)).and_then(Path::to_str);
    let Some(name) = name else { return Ok(Model::open(model, add_ons)?) };
    let pulled = ModelsDir::new(models_dir()?).find(name)?.ok_or_else(|| Failure::Other(unknown(name)))?;
    Ok(Model::open(Some(&pulled.path()), add_ons)?)
}

fn unknown(name: &str) -> String {
    let pull = match name.contains('/') {
        true => format!(", `stablehand models pull {name}` may download it"),
        false => String::new(),
    };
    format!(
        "there is no model {name}, neither as a file or folder nor as a pulled model: `stablehand models list` shows the \
         pulled models{pull}"
    )
}

/// Whether the text may be the name of a pulled model, because it does not look like a path.
fn could_be_a_name(path: &Path) -> bool {
    path.is_relative() && !path.starts_with(".") && !path.starts_with("..") && !path.starts_with("~")
}
